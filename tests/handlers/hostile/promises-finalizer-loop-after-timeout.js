// row: H6
// expect: TIMEOUT
new FinalizationRegistry(() => { for (;;); }).register({}, 1);
for (;;);
