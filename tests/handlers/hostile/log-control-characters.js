// row: H10
// expect: success
$log('\u001b[31m red \u0007 \r\n \u0000 \u009b');
console.error('\u202e');
return 1;
