// row: H10
// expect: success | RESOURCE_LIMIT | TIMEOUT
const o = { toString() { for (;;); }, get x() { throw 1; } };
$log(o, [o], new Proxy({}, { get() { throw 2; }, ownKeys() { throw 3; } }));
return 1;
