// row: H1
// expect: TIMEOUT
const t = () => { for (;;); };
t`x`;
