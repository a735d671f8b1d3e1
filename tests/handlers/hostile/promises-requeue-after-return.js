// row: H6
// expect: TIMEOUT | success
const again = () => { Promise.resolve().then(again); };
again();
return 1;
