// row: H1
// expect: TIMEOUT
function* a() { for (;;) yield* [1, 2, 3]; }
for (const x of a());
