// row: H1
// expect: TIMEOUT
async function* forever() { for (;;) yield 1; }
for await (const x of forever());
