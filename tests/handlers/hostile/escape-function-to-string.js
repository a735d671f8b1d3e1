// row: H9
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
if (/nexus|\.c:|\/|wasm/.test(String($emit) + String(Array.prototype.map))) throw new Error(String($emit));
return 1;
