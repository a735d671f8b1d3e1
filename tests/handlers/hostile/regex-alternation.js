// row: H2
// expect: TIMEOUT
return /^(a|aa)+$/.test('a'.repeat(60) + '!');
