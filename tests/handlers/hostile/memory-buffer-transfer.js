// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR
let b = new ArrayBuffer(1 << 20);
for (let n = 1 << 20; ; n *= 2) b = b.transfer(n);
