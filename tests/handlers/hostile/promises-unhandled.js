// row: H6
// expect: success | MEMORY_LIMIT | EXECUTION_ERROR
for (let i = 0; i < 1e5; i++) Promise.reject(new Error('nobody looks'));
return 1;
