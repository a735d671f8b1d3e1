// row: H6
// expect: MEMORY_LIMIT | TIMEOUT
const r = new FinalizationRegistry(() => { for (;;); });
const all = [];
for (;;) { r.register({}, 1); all.push(new Array(1000)); }
