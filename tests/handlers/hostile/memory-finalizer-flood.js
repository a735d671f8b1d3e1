// row: H5
// expect: success | MEMORY_LIMIT | TIMEOUT
const r = new FinalizationRegistry(() => {});
for (let i = 0; i < 1e6; i++) r.register({}, new Array(10));
return 1;
