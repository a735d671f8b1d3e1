// Formulas of a sheet: what a column says, for each of its rows. Many at once share the instances.
import { NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const formula = await runtime.precompileHandler('const { price, count } = $args; return Math.round(price * count * 1.19 * 100) / 100');
const rows = [{ price: 10, count: 1 }, { price: 2.5, count: 4 }, { price: 'x', count: 1 }];
const values = await Promise.all(rows.map(async (args) => (await runtime.run(formula, { args })).value));
console.log(values.join(' '));
await runtime.shutdown();
// prints 11.9 11.9 NaN
