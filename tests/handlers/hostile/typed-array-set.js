// row: H3
// expect: TIMEOUT
const a = new Uint8Array(8e6), b = new Uint8Array(a.buffer);
for (;;) a.set(b);
