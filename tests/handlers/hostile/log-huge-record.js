// row: H10
// expect: success | MEMORY_LIMIT
$log('x'.repeat(15e6));
return 1;
