// expect: TIMEOUT
new Proxy({}, { get() { for (;;); } }).x;
