// row: H9
// expect: success
const g = (function () { return this; })();
if (g && g !== globalThis) throw new Error('another global');
return typeof this;
