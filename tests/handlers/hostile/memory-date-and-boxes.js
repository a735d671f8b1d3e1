// row: H5
// expect: MEMORY_LIMIT
const all = [];
for (;;) all.push(new Date(), Object(1), Object("s"), Object(Symbol()));
