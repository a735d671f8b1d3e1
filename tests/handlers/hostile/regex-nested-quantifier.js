// row: H2
// expect: TIMEOUT
return /^(a+)+$/.test('a'.repeat(40) + '!');
