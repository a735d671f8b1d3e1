// row: H5
// expect: MEMORY_LIMIT | EXECUTION_ERROR | TIMEOUT
const all = [];
for (let i = 0; ; i++) all.push(new RegExp("(?:" + "a|".repeat(10000) + i + ")"));
