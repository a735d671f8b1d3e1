// row: H1
// expect: TIMEOUT
Array.prototype.forEach.call({ get length() { for (;;); } }, () => 1);
