// row: H9
// expect: EXECUTION_ERROR
return await (async function* () {}).constructor('yield 1')().next();
