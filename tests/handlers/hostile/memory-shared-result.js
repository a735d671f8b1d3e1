// row: H5
// expect: RESOURCE_LIMIT | MEMORY_LIMIT
// small in the guest, large once it is written out
let a = ['x'.repeat(1e5)];
for (let i = 0; i < 12; i++) a = [a, a];
return a;
