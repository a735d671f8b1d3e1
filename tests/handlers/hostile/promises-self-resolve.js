// row: H6
// expect: EXECUTION_ERROR
let f;
const p = new Promise(r => { f = r; });
f(p);
await p;
