// row: H5
// expect: MEMORY_LIMIT
const m = new Map();
for (let i = 0; ; i++) m.set({ i }, 'v' + i);
