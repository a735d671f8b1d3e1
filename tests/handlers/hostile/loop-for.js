// row: H1
// expect: TIMEOUT
for (;;);
