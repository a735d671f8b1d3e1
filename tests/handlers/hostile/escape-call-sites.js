// row: H9
// expect: success
const old = Error.prepareStackTrace;
let seen = [];
Error.prepareStackTrace = (e, sites) => { seen = sites; return ''; };
new Error('x').stack;
for (const site of [].concat(seen ?? [])) {
  for (const k of ['getThis', 'getEvalOrigin']) if (typeof site?.[k] === 'function' && site[k]()) throw new Error(k);
  let made = 0;
  try { made = site.getFunction?.()?.constructor?.('return 1')(); } catch { }
  if (made) throw new Error('getFunction');
}
return 1;
