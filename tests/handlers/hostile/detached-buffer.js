// row: H8
// expect: success | EXECUTION_ERROR | SERIALIZATION_ERROR
const b = new ArrayBuffer(1000);
const v = new Uint8Array(b);
b.transfer?.();
return v;
