// row: H2
// expect: success | EXECUTION_ERROR | TIMEOUT
const words = Array.from({ length: 20000 }, (_, i) => 'w' + i).join('|');
return new RegExp(words).test('nothing');
