// How an execution may try to leave something behind. Each channel is a handler of its own; before it stand
//   const c = $args.text, bytes = $args.bytes;   a canary of 32 random characters, and one of 32 random bytes
// Some end in errors, some are stopped, some suspend: all of that belongs to what they try.

// channel: global properties
globalThis.leak = c; globalThis[c] = 1; var leaked = c; globalThis.leakBytes = bytes; undeclared = c
// channel: global accessor
Object.defineProperty(globalThis, 'leak', { get() { return c }, enumerable: false, configurable: false })
// channel: prototypes of objects, arrays, functions
Object.prototype.leak = c; Array.prototype.leak = c; Function.prototype.leak = c; Array.prototype[0] = c
// channel: accessor on Object.prototype that cannot be removed
Object.defineProperty(Object.prototype, 'leak', { get() { return c }, configurable: false })
// channel: prototypes of primitives
String.prototype.leak = Number.prototype.leak = Symbol.prototype.leak = BigInt.prototype.leak = Boolean.prototype.leak = c
// channel: every constructor and every prototype
for (const name of Reflect.ownKeys(globalThis)) {
  const value = globalThis[name];
  if (typeof value === 'function') { try { value.leak = c } catch {} try { value.prototype.leak = c } catch {} try { value[Symbol.species] = c } catch {} }
}
// channel: every method of every prototype
for (const name of Reflect.ownKeys(globalThis)) {
  const prototype = globalThis[name]?.prototype;
  if (!prototype) continue;
  for (const key of Reflect.ownKeys(prototype)) try { const method = prototype[key]; if (typeof method === 'function') method.leak = c } catch {}
}
// channel: intrinsics without a name
const p = Object.getPrototypeOf;
for (const intrinsic of [p(Uint8Array), p(function* () {}), p(async () => {}), p(async function* () {}), p([].values()), p(new Map().values()),
  p(new Set().values()), p(''.matchAll(/x/g)), p(p((function* () {})())), p(p((async function* () {})())), p(p([].values())), p(''[Symbol.iterator]()),
  p([].values().map(x => x))]) { try { intrinsic.leak = c; intrinsic.constructor.leak = c } catch {} }
// channel: promise machinery
Promise.prototype.then = () => c; Promise.resolve = () => c; Promise.leak = c; Promise.prototype.constructor = function () { return c }
// channel: prototype of the global object
Object.setPrototypeOf(globalThis, { leak: c })
// channel: prototypes exchanged
Object.setPrototypeOf(Array.prototype, { leak: c }); Object.setPrototypeOf(Function.prototype, { leak: c })
// channel: prototype chain through a proxy
Object.setPrototypeOf(Array.prototype, new Proxy({}, { get: () => c, has: () => true }))
// channel: symbol registry
Symbol.for(c); globalThis[Symbol.for('leak')] = c; Object.prototype[Symbol.for('leak')] = c; Symbol.leak = Symbol(c)
// channel: well-known symbols
Object.prototype[Symbol.toPrimitive] = () => c; Object.prototype[Symbol.toStringTag] = c; Array.prototype[Symbol.isConcatSpreadable] = c; RegExp.prototype[Symbol.replace] = () => c
// channel: statics of RegExp
/(.*)(.)/.exec(c); c.replace(/./g, 'x'); c.match(new RegExp(c)); RegExp.leak = c; RegExp.prototype.leak = c; RegExp.prototype.exec = () => c
// channel: lastIndex
const r = /x/g; r.lastIndex = 5; r.leak = c; globalThis.r = r; RegExp.prototype.lastIndex = c
// channel: compiled regular expressions
for (let i = 0; i < 500; i++) new RegExp(c + i, 'giu').test(c + i)
// channel: closures kept by pending jobs
new Promise(() => {}).then(() => c); Promise.resolve().then(function again() { return Promise.resolve(c) })
// channel: jobs after the end
Promise.resolve().then(async () => { for (let i = 0; i < 5; i++) await null; globalThis.leak = c }); return 1
// channel: a promise that is never settled, awaited
globalThis.leak = c; await new Promise(resolve => { globalThis.resolve = resolve })
// channel: unhandled rejections
Promise.reject(c); Promise.reject(new Error(c)); new Promise((_, reject) => reject({ c }))
// channel: finalizers
globalThis.registry = new FinalizationRegistry(held => { globalThis.leak = held }); globalThis.registry.register({}, c); globalThis.registry.register({ c }, bytes)
// channel: weak references
globalThis.leak = new WeakRef({ c }); globalThis.map = new WeakMap([[globalThis, c]]); globalThis.set = new WeakSet([{ c }])
// channel: typed arrays
const a = new Uint8Array(1 << 20); for (let i = 0; i < a.length; i++) a[i] = bytes[i % 32]; globalThis.a = a
// channel: typed arrays that are freed
for (let n = 1; n < 1 << 18; n *= 2) { const a = new Uint8Array(n); for (let i = 0; i < n; i++) a[i] = bytes[i % 32] }
// channel: resizable and transferred buffers
const b = new ArrayBuffer(1 << 12, { maxByteLength: 1 << 16 }); new Uint8Array(b).set(bytes); b.resize(1 << 16); new Uint8Array(b).set(bytes, 60000); b.transfer(); b.leak = c
// channel: all of the memory
const all = []; for (let i = 0; i < 400; i++) { const a = new Uint8Array(1 << 16); for (let j = 0; j < a.length; j += 4096) a.set(bytes, j); all.push(a) }
// channel: strings
const all = []; for (let i = 0; i < 2000; i++) all.push(c + i, (c + i).toUpperCase(), c + '\u4e00' + i); globalThis.all = all.join()
// channel: ropes and slices
let rope = c; for (let i = 0; i < 200; i++) rope = rope + c + i; globalThis.rope = rope; globalThis.slice = rope.slice(1000, 3000)
// channel: property names
const o = {}; for (let i = 0; i < 3000; i++) o[c + i] = i; globalThis.o = o
// channel: shapes
for (let i = 0; i < 500; i++) { const o = {}; for (let j = 0; j < 8; j++) o[c + (i ^ j)] = j; Object.assign(globalThis, { ['leak' + i]: o }) }
// channel: private fields and static blocks
class A { static leak = c; #p = c; static #q = c; static { globalThis.A = this } get p() { return this.#p } static has(o) { return #p in o } } globalThis.instance = new A()
// channel: template objects
const tag = strings => { strings.raw; return strings }; globalThis.template = tag`CANARY of a template ${c}`; try { globalThis.template.leak = c } catch {}
// channel: generators
function* g() { yield c; yield c } globalThis.g = g(); globalThis.g.next(); async function* h() { yield c } globalThis.h = h(); await globalThis.h.next()
// channel: iterators that are not finished
Iterator.prototype.leak = c; for (const x of new Map([[c, c]])) break; globalThis.i = [c, c][Symbol.iterator](); globalThis.i.next(); globalThis.helper = [c].values().map(x => x)
// channel: an error thrown
throw new Error(c)
// channel: a value thrown
throw c
// channel: an error with everything
const e = new AggregateError([new Error(c, { cause: c })], c); e.name = c; e.code = c; e.stack = c; e.extension = c; throw e
// channel: an error whose getters run
throw { get message() { globalThis.leak = c; return c }, get stack() { return c }, get name() { return c } }
// channel: stack traces
Error.prepareStackTrace = () => c; Error.stackTraceLimit = 77; Error.prototype.message = c; Error.prototype.name = c; globalThis.stack = new Error(c).stack
// channel: captured stack traces
const holder = {}; Error.captureStackTrace(holder); Error.prepareStackTrace = (error, frames) => { globalThis.frames = frames; return c }; holder.stack; globalThis.holder = holder
// channel: Date, Math, JSON
Date.now = () => c; Math.random = () => c; JSON.stringify = () => c; JSON.parse = () => c; Date.prototype.getTime = () => c; Math.leak = c; Date.leak = c
// channel: random numbers
for (let i = 0; i < 1000; i++) Math.random(); globalThis.leak = Math.random()
// channel: array machinery
Array.prototype[Symbol.iterator] = function* () { yield c }; Array.prototype.push = () => c; Array.from = () => c; Array.prototype.join = () => c
// channel: property descriptors
Object.defineProperty = () => c; Reflect.ownKeys = () => [c]; Object.getOwnPropertyDescriptor = () => ({ value: c }); Object.prototype.__defineGetter__('leak', () => c)
// channel: attributes inherited by descriptors
Object.prototype.value = c; Object.prototype.get = undefined; Object.prototype.enumerable = true
// channel: $state and its prototype
try { $state.__proto__ = { leak: c } } catch {} try { $state.get = () => c } catch {} try { Object.setPrototypeOf($state, { leak: c }) } catch {} $state.leak = c
// channel: $state methods
for (const name of ['get', 'set', 'delete', 'has', 'keys', 'update']) try { const f = $state[name]; f.leak = c; Object.getPrototypeOf(f).leak = c } catch {}
// channel: values of $state
$state.text; $state.nested.leak = c; $state.nested.list.push(c); globalThis.kept = $state.nested; Object.getPrototypeOf($state.nested).leak = c; Object.freeze($state.nested)
// channel: $emit, $view, $log
for (const it of [$emit, $view, $log, $time, $ext, console, crypto]) { try { it.leak = c } catch {} try { Object.getPrototypeOf(it).leak = c } catch {} }
// channel: methods of what handlers are given
for (const f of [$emit.toast, $view.setFilter, $view.command, $log.info, $time.now, console.log, crypto.getRandomValues, $ext.exists, $ext.list]) try { f.leak = c; f.prototype = { c } } catch {}
// channel: what handlers are given, replaced
$emit = $log = $state = $view = $ext = $time = $args = $scope = console = crypto = c
// channel: what handlers are given, redefined
for (const name of ['$emit', '$log', '$state', '$view', '$ext', '$time', '$args', '$scope']) try { Object.defineProperty(globalThis, name, { get: () => c, configurable: false }) } catch {}
// channel: $args and $scope
$args.leak = c; $scope.leak = c; Object.getPrototypeOf($args).leak = c; $args.bytes.fill(67); globalThis.kept = [$args, $scope]
// channel: globals deleted
delete globalThis.$emit; delete globalThis.Array; delete globalThis.JSON; delete globalThis.Object; globalThis.undefined_ = c
// channel: frozen and sealed
Object.freeze(Object.prototype); Object.freeze(Array.prototype); Object.freeze($state); Object.preventExtensions(globalThis); throw c
// channel: effects
$state.leak = c; $emit('leak', { c, bytes }); $log(c, { c }); console.error(c); $view.setFilter('leak', c); $view.command('leak', 'c', { bytes }); $emit.toast(c, c)
// channel: an effect that fails
try { $emit('leak', { c, get x() { globalThis.leak = c; throw new Error(c) } }) } catch {} const cycle = { c }; cycle.cycle = cycle; try { $state.leak = cycle } catch {}
// channel: log text
for (let i = 0; i < 200; i++) $log(c.repeat(100), bytes, new Error(c))
// channel: random bytes
const random = new Uint8Array(65536); crypto.getRandomValues(random); random.set(bytes); globalThis.random = random
// channel: an extension call that waits
globalThis.leak = c; const answer = await $ext.leak.call(c, bytes); globalThis.answer = answer; return answer
// channel: several extension calls that wait
globalThis.leak = [$ext.leak.one(c), $ext.leak.two(bytes), $ext.leak.three({ c })]; await Promise.all(globalThis.leak)
// channel: an extension call nobody waits for
$ext.leak.forgotten(c).then(x => { globalThis.leak = x }); return c
// channel: suspended in a finally
try { globalThis.leak = c; throw new Error(c) } finally { await $ext.leak.call(c) }
// channel: suspended in a generator
globalThis.g = (async function* () { yield await $ext.leak.call(c) })(); globalThis.leak = c; await globalThis.g.next()
// channel: suspended inside synchronous code
globalThis.leak = c; const l = [c, c].map(x => [x, $ext.leak.call(x, bytes)]); globalThis.l = l; return l.length
// channel: an endless loop
globalThis.leak = c; for (;;) ;
// channel: an endless loop that catches
globalThis.leak = c; for (;;) try { for (;;) $state.leak = c } catch {}
// channel: a built-in that does not come back
globalThis.leak = c; globalThis.leakBytes = bytes; return (3n ** 4000000n).toString()
// channel: a regular expression that does not come back
globalThis.leak = c; return /(a+)+$/.test('a'.repeat(40) + c)
// channel: out of memory
globalThis.leak = c; const a = []; for (;;) a.push(c + a.length)
// channel: out of memory in one piece
globalThis.leak = c; let s = c; for (;;) s += s + c
// channel: out of memory with buffers
globalThis.leak = []; for (;;) { const a = new Uint8Array(1 << 20); a.set(bytes); a.set(bytes, 1 << 19); globalThis.leak.push(a) }
// channel: stack overflow
globalThis.leak = c; function f(x) { f(x + c) } f(c)
// channel: stack overflow in a proxy
globalThis.leak = c; const p = new Proxy({ c }, { get(t, k, r) { return r[k + c] } }); p.x
// channel: too many host calls
globalThis.leak = c; for (;;) try { 'leak' in $state } catch {}
// channel: a result that is too large
globalThis.leak = c; return c.repeat(1 << 20)
// channel: a result that cannot be carried
globalThis.leak = c; const cycle = { c, bytes }; cycle.cycle = cycle; return cycle
// channel: a result that runs code
return { get leak() { globalThis.leak = c; return c }, list: [c, bytes, new Map([[c, c]]), new Error(c)] }
// channel: BigInt
globalThis.leak = BigInt('0x' + [...c].map(x => x.charCodeAt(0).toString(16)).join('')) ** 99n; BigInt.prototype.leak = c
// channel: collections
globalThis.leak = [new Map([[c, bytes]]), new Set([c]), new Map(Object.entries({ [c]: c }))]; Map.prototype.get = () => c; Set.prototype.has = () => true
// channel: bound functions and proxies
globalThis.leak = function () { return c }.bind(c, c, bytes); globalThis.proxy = new Proxy({ c }, { get: () => c }); globalThis.revoked = Proxy.revocable({ c }, {}).proxy
// channel: disposal
{ using d = { [Symbol.dispose]() { globalThis.leak = c } } } const stack = new DisposableStack(); stack.defer(() => c); globalThis.stack = stack
// channel: locale and normal forms
globalThis.leak = [c.normalize('NFD'), c.toLocaleUpperCase(), new Date().toLocaleString(), (1e9).toLocaleString()]; String.prototype.normalize = () => c
