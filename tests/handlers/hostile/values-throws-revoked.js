// row: H8
// expect: EXECUTION_ERROR
const { proxy, revoke } = Proxy.revocable({}, {});
revoke();
throw proxy;
