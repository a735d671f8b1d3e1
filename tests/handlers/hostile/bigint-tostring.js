// row: H3
// expect: TIMEOUT
return (3n ** 4000000n).toString().length;
