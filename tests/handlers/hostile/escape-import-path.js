// row: H9
// expect: COMPILATION_ERROR | EXECUTION_ERROR
return await import('../../../etc/passwd');
