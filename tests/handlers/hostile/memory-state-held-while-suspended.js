// row: H5
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (let i = 0; i < 15; i++) $state['k' + i] = 'x'.repeat(1e6);
const hold = new Uint8Array(8e6).fill(1);
for (let i = 0; i < 3; i++) await $ext.a.b(i);
return $state.k7.length + hold.length;
