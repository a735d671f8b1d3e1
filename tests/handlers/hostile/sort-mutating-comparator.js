// row: H3
// expect: success
const a = Array.from({ length: 1000 }, (_, i) => i);
a.sort(() => { a.length = 0; return 1; });
return typeof a.length;
