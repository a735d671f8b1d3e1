// row: H9
// expect: success | COMPILATION_ERROR
return 1 <!-- 2
;
