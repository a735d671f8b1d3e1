// row: H1
// expect: TIMEOUT
return 1 + { valueOf() { for (;;); } };
