// row: H5
// expect: success | MEMORY_LIMIT | TIMEOUT
const r = new FinalizationRegistry(() => { for (;;); });
for (let i = 0; i < 100000; i++) r.register({}, i);
return 1;
