// Walks everything that can be reached, looks for traces of a canary, and returns where they are.
const found = [], seen = new Set(), todo = [[globalThis, 'globalThis']];
const p = Object.getPrototypeOf;
const look = (text, path) => { if (typeof text === 'string' && text.includes('CANARY')) found.push(path) };
const lookAtBytes = (view, path) => {
  for (let i = view.indexOf(67); i >= 0; i = view.indexOf(67, i + 1)) if (view[i + 1] === 65 && view[i + 2] === 78 && view[i + 3] === 65) { found.push(path); break }
};
const failed = (() => { try { null.x } catch (error) { return error } })();
const recursive = (() => { try { (function f() { f() })() } catch (error) { return error } })();
const template = (strings => strings)`a${1}b`;
todo.push(...[p(Uint8Array), function* () {}, async () => {}, async function* () {}, (function* () {})(), (async function* () {})(), [].values(), new Map().values(),
  new Set().values(), ''.matchAll(/x/g), ''[Symbol.iterator](), [].values().map(x => x), /(a)(b)?/d.exec('ab'), new Proxy({}, {}), Promise.withResolvers(), failed, recursive,
  template, new Error('e'), new AggregateError([]), $args, $scope, $state, $state.nested, $ext, $ext.leak, Symbol.for('leak'), Symbol('x'), new DisposableStack(),
  new WeakRef({}), new FinalizationRegistry(() => {}), new Uint8Array(8), new ArrayBuffer(8), Object(1n), Object('s'), new Date(0), (() => arguments)]
  .map((value, i) => [value, 'root' + i]));
while (todo.length > 0) {
  const [value, path] = todo.pop();
  if (typeof value === 'string') look(value, path);
  if (typeof value === 'symbol') look(value.description, path);
  if ((typeof value !== 'object' && typeof value !== 'function') || value === null || seen.has(value)) continue;
  seen.add(value);
  if (typeof value === 'function') look(Function.prototype.toString.call(value), path + '()');
  if (ArrayBuffer.isView(value)) lookAtBytes(new Uint8Array(value.buffer), path);
  todo.push([p(value), path + '.__proto__']);
  for (const key of Reflect.ownKeys(value)) {
    look(typeof key === 'symbol' ? key.description : key, path + '.key');
    const property = Object.getOwnPropertyDescriptor(value, key);
    if (property === undefined) continue;
    const name = path + '.' + String(key);
    if ('value' in property) todo.push([property.value, name]);
    else todo.push([property.get, name], [property.set, name]);
  }
}
for (const name of ['$1', '$2', '$9', 'lastMatch', 'lastParen', 'input', 'leftContext', 'rightContext', '$_', '$&']) look(RegExp[name], 'RegExp.' + name);
look(new Error('e').stack, 'stack'); look(String(Date.now()), 'now'); look(String(Math.random()), 'random'); look(`${{}}${[]}${() => 0}`, 'text');
look(JSON.stringify([...'ab', {}, [1]]), 'json'); look(JSON.stringify($state.keys()), 'state'); look(await Promise.resolve('p'), 'promise');
look((1).toLocaleString() + new Date(0).toLocaleString() + 'x'.normalize('NFD'), 'locale'); look('x'.replace(/x/, 'y'), 'replace');
// memory that an earlier execution may have had
for (let n = 16; n <= 1 << 22; n *= 4) { const fresh = new Uint8Array(n); if (fresh.indexOf(67) >= 0 || fresh.subarray(0, 4096).some(b => b !== 0)) found.push('memory ' + n) }
for (const hole of new Array(1000)) if (hole !== undefined) found.push('hole');
// finalizers and jobs of an earlier execution would run now
for (let i = 0; i < 5000; i++) { const cycle = {}; cycle.cycle = cycle }
for (let i = 0; i < 20; i++) await null;
for (const name of ['leak', 'all', 'r', 'g', 'registry', 'undeclared']) if (name in globalThis) found.push('global ' + name);
if (!Object.isExtensible(globalThis) || Object.isFrozen(Array.prototype) || 'leak' in {} || Error.stackTraceLimit !== 10) found.push('integrity');
const order = Reflect.ownKeys(globalThis).map(String).join();
return { found, seen: seen.size, order };
