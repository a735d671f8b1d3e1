// row: H5
// expect: MEMORY_LIMIT | TIMEOUT
for (;;) {
  try {
    const all = [];
    for (;;) all.push(new Array(10000).fill(1));
  } catch {
  }
}
