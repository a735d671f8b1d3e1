// row: H1
// expect: TIMEOUT
do { } while (true);
