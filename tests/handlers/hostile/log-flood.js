// row: H10
// expect: TIMEOUT | success | RESOURCE_LIMIT
for (let i = 0; ; i++) $log('x'.repeat(10000));
