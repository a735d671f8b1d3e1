// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
const o = {};
for (let i = 0; i < 1e5; i++) o['k' + i] = i;
for (;;) JSON.stringify(o);
