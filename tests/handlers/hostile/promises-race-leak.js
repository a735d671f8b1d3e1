// row: H6
// expect: MEMORY_LIMIT | TIMEOUT
const never = new Promise(() => {});
for (;;) Promise.race([never, 1]);
