// row: H1
// expect: TIMEOUT
new Proxy({}, { get() { for (;;); } }).x;
