// expect: TIMEOUT
for (;;) await null;
