// expect: MEMORY_LIMIT
const all = [];
for (;;) all.push(() => all);
