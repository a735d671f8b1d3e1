// row: H4
// expect: EXECUTION_ERROR RangeError
let f = () => 1;
for (let i = 0; i < 3e4; i++) f = Object.defineProperty(f.bind(null), 'name', { value: '' });
f();
