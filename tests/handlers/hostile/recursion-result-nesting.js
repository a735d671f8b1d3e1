// row: H4
// expect: SERIALIZATION_ERROR
let a = [];
for (let i = 0; i < 1e5; i++) a = [a];
return a;
