// expect: TIMEOUT
outer: for (;;) {
  for (;;) continue outer;
}
