// row: H9
// expect: success | EXECUTION_ERROR
return new RegExp("\u2028[\\").source;
