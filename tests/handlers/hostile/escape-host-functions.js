// row: H9
// expect: success
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
for (const k of Object.getOwnPropertyNames(globalThis)) if (/nexus|^__|nx_/.test(k)) throw new Error(k);
for (const o of [$state, $emit, $ext, $view, $log, $time]) for (const k of Reflect.ownKeys(o)) if (/nexus|^__nx/.test(String(k))) throw new Error(String(k));
return 1;
