// row: H3
// expect: TIMEOUT
Array.prototype.indexOf.call({ length: 2 ** 53 - 1 }, 1);
