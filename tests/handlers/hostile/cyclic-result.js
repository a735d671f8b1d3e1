// row: H8
// expect: SERIALIZATION_ERROR
const o = {};
o.o = o;
return o;
