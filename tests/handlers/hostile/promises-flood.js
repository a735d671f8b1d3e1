// row: H6
// expect: MEMORY_LIMIT | TIMEOUT | success
const all = [];
for (let i = 0; i < 1e6; i++) all.push(Promise.resolve(i));
await Promise.all(all);
return 1;
