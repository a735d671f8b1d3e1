// row: H10
// expect: success | RESOURCE_LIMIT | TIMEOUT
for (let i = 0; i < 1000; i++) $log('\u001b[31m\u001b]0;title\u0007'.repeat(5000));
return 1;
