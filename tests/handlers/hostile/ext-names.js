// row: H7
// expect: success | EXECUTION_ERROR | PERMISSION_DENIED
// grant: state:read:* state:write:* events:emit:* view:update:* ext:* crypto:random
const tried = [];
for (const name of ["__proto__", "constructor", "prototype", "then", "toString", "a b", "\u0000", "x".repeat(5000)]) {
  try { tried.push(typeof $ext[name]); $ext[name]?.constructor?.("return 1"); } catch (e) { tried.push(e.name); }
}
return tried.length;
