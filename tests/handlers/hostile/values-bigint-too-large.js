// row: H8
// expect: SERIALIZATION_ERROR
return 2n ** 64n;
