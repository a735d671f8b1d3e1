// row: H1
// expect: TIMEOUT
for (;;) {
  try {
    while (true);
  } catch {
  } finally {
    continue;
  }
}
