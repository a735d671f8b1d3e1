// row: H2
// expect: EXECUTION_ERROR
return new RegExp("(".repeat(200000) + ")".repeat(200000)).test("");
