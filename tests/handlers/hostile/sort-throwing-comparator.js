// row: H3
// expect: EXECUTION_ERROR Error
Array.from({ length: 1000 }, (_, i) => i).sort(() => { throw new Error('no order'); });
