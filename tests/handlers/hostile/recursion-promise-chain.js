// row: H4
// expect: success | MEMORY_LIMIT | EXECUTION_ERROR RangeError
let p = Promise.resolve(1);
for (let i = 0; i < 1e5; i++) p = p.then(x => x);
return await p;
