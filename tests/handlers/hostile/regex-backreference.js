// row: H2
// expect: TIMEOUT
return /^(a*)*\1$/.test('a'.repeat(30) + 'b');
