// row: H9
// expect: success
return ['std', 'os', 'process', 'require', 'module', 'setTimeout', 'setInterval', 'queueMicrotask', 'SharedArrayBuffer', 'WebAssembly', 'print', 'scriptArgs', 'eval', 'fetch', 'Worker', '__nexus_state_get']
  .filter((name) => name in globalThis).length === 0 || undefined.found;
