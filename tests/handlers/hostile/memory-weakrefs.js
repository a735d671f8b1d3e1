// row: H5
// expect: MEMORY_LIMIT
const all = [];
for (;;) {
  const o = {};
  all.push(new WeakRef(o), o);
}
