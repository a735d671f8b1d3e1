// row: H8
// expect: EXECUTION_ERROR | SERIALIZATION_ERROR
const { proxy, revoke } = Proxy.revocable({}, {});
revoke();
return { proxy };
