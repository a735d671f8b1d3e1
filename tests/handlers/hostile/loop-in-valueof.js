// expect: TIMEOUT
return 1 + { valueOf() { for (;;); } };
