// row: H7
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
// answer: 7
const p = new Proxy({}, { get: (t, k) => $ext.a.b(String(k)), ownKeys: () => { $ext.a.b(1); return []; } });
Object.keys(p);
return await p.x;
