// row: H7
// expect: success | EXECUTION_ERROR
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const a = [1, 2, 3, 4];
Object.defineProperty(a, 0, { get() { a.length = 1; return 1; }, enumerable: true });
$emit("e", a);
return 1;
