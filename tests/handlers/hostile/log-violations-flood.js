// row: H10
// expect: success | RESOURCE_LIMIT
for (let i = 0; i < 9000; i++) { try { $state['k\n\u001b[31mERROR forged' + i]; } catch { } }
return 1;
