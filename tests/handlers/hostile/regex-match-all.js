// row: H2
// expect: TIMEOUT
return [...('a'.repeat(40) + 'b').matchAll(/(a+)+$/g)];
