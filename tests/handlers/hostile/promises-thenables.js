// row: H6
// expect: MEMORY_LIMIT | TIMEOUT
const all = [];
for (;;) all.push(Promise.resolve({ then(f) { f(1); } }));
