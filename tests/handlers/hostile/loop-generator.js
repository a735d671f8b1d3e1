// row: H1
// expect: TIMEOUT
function* forever() {
  for (;;) yield 1;
}
for (const x of forever());
