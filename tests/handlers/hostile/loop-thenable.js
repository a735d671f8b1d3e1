// row: H1
// expect: TIMEOUT
const endless = { then(resolve) { resolve(endless); } };
await endless;
