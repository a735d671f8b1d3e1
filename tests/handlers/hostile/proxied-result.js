// row: H8
// expect: success | EXECUTION_ERROR | SERIALIZATION_ERROR
return new Proxy({}, { ownKeys: () => ['a', 'b'], getOwnPropertyDescriptor: () => ({ enumerable: true, configurable: true, value: 1 }), get: () => 2 });
