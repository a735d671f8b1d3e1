// row: H2
// expect: TIMEOUT | success | COMPILATION_ERROR
return 'a'.repeat(60).concat('b').split(/(?:a+)+$/);
