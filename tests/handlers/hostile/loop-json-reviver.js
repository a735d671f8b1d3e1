// row: H1
// expect: TIMEOUT
JSON.parse('[1]', () => { for (;;); });
