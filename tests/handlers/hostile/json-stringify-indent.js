// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
const o = {};
let p = o;
for (let i = 0; i < 500; i++) p = p.x = {};
for (;;) JSON.stringify(o, null, 10);
