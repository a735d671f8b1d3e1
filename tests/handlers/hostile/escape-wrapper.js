// row: H9
// expect: COMPILATION_ERROR
return 1; }); (async () => { globalThis.escaped = true;
