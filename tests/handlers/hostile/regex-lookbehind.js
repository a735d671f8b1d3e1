// row: H2
// expect: TIMEOUT | success
return /(?<=^(a+)+)!/.test('a'.repeat(40) + '?!');
