// row: H4
// expect: EXECUTION_ERROR RangeError
let F = function () {};
for (let i = 0; i < 3e4; i++) F = Object.defineProperty(F.bind(null), 'name', { value: '' });
return ({}) instanceof F;
