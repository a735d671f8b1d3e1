// row: H1
// expect: TIMEOUT
for (;;) [3, 1, 2].sort(() => { for (let i = 0; i < 1000; i++); return 0; });
