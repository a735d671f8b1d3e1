// row: H4
// expect: success | EXECUTION_ERROR RangeError | TIMEOUT
function f(n) { try { return f(n + 1); } catch { return n; } finally { } }
return f(0) > 10;
