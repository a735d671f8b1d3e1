// row: H1
// expect: TIMEOUT
const again = () => Promise.resolve().then(again);
await again();
