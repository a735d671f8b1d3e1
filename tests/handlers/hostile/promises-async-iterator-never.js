// row: H6
// expect: EXECUTION_ERROR
for await (const x of { [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => {}) }) });
