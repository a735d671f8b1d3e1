// row: H5
// expect: SERIALIZATION_ERROR | RESOURCE_LIMIT | MEMORY_LIMIT | TIMEOUT | EXECUTION_ERROR | success
// may also succeed
const a = [];
a.push({ get x() { a.push({ get x() { return a; } }); return 1; } });
for (let i = 0; i < 100; i++) a.push({ get y() { a.length = 0; return 1; } });
return a;
