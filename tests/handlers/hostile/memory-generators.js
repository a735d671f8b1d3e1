// row: H5
// expect: MEMORY_LIMIT
const all = [];
function* g() { yield 1; }
for (;;) { const it = g(); it.next(); all.push(it); }
