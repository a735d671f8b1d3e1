// expect: TIMEOUT | success
return /(?<=^(a+)+)!/.test('a'.repeat(40) + '?!');
