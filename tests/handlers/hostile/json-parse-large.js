// row: H3
// expect: TIMEOUT | MEMORY_LIMIT
for (;;) JSON.parse('[' + '[1],'.repeat(200000) + '1]');
