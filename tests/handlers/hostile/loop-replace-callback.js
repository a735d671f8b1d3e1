// row: H1
// expect: TIMEOUT
'a'.replace(/a/, () => { for (;;); });
