// row: H1
// expect: TIMEOUT
const it = { [Symbol.iterator]: () => ({ next: () => ({ value: 1 }), return() { for (;;); } }) };
for (const x of it) break;
