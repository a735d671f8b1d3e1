// row: H1
// expect: TIMEOUT | COMPILATION_ERROR | EXECUTION_ERROR
const o = { [Symbol.iterator]: () => o, next: () => ({ done: false }), return() { for (;;); } };
const [x] = o;
