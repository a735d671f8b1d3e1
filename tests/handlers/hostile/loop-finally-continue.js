// expect: TIMEOUT
for (;;) {
  try {
    while (true);
  } catch {
  } finally {
    continue;
  }
}
