// row: H9
// expect: EXECUTION_ERROR
return Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0);
