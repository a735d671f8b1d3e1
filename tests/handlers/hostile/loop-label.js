// row: H1
// expect: TIMEOUT
outer: for (;;) {
  for (;;) continue outer;
}
