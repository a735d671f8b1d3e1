// Formulas of a sheet: what a column says, for each of its rows, in one request. Each is apart from the others.
import { formatError, NexusRuntime } from '@nexus/sidecar';

const runtime = new NexusRuntime();
const formula = 'const { price, count } = $args; return Math.round(price.valueOf() * count * $scope.tax * 100) / 100';
const rows = [{ price: 10, count: 1 }, { price: 2.5, count: 4 }, { count: 1 }, { price: 1, count: 3 }];
const cells = await runtime.runMany(formula, rows.map((args) => ({ args })), { scope: { tax: 1.19 } });
for (const { value, error } of cells) console.log(value ?? formatError(error).split('\n')[0]);
await runtime.shutdown();
// prints 11.9
// prints 11.9
// prints EXECUTION_ERROR: TypeError: cannot read property 'valueOf' of undefined
// prints 3.57
