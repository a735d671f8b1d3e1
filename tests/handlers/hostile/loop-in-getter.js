// row: H1
// expect: TIMEOUT
const o = { get x() { for (;;); } };
return { ...o };
