// row: H2
// expect: TIMEOUT
return /^(?=(a+)+$)b/.test('a'.repeat(40) + 'c');
