// row: H6
// expect: TIMEOUT | MEMORY_LIMIT
let late = false;
Promise.resolve().then(() => { late = true; });
for (;;) await { then(f) { f(); } };
