// row: H8
// expect: SERIALIZATION_ERROR
const m = new Map();
m.set("m", m);
return m;
