// row: H4
// expect: success | EXECUTION_ERROR RangeError | TIMEOUT | MEMORY_LIMIT
let C = class {};
for (let i = 0; i < 2e4; i++) C = class extends C {};
return typeof new C();
