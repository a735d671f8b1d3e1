// row: H3
// expect: TIMEOUT
const a = Array.from({ length: 1e5 }, (_, i) => i);
for (;;) a.sort(() => (Math.random() < 0.5 ? -1 : 1));
