// row: H2
// expect: TIMEOUT
return ('a'.repeat(40) + 'b').replace(/(a+)+$/g, '');
