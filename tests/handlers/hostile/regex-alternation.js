// expect: TIMEOUT
return /^(a|aa)+$/.test('a'.repeat(60) + '!');
