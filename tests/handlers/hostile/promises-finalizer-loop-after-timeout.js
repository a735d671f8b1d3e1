// expect: TIMEOUT
new FinalizationRegistry(() => { for (;;); }).register({}, 1);
for (;;);
