// row: H9
// expect: success
const stack = new Error('x').stack ?? '';
if (/\/work|\/home|\/tmp|\.rs|\.c:/.test(stack)) throw new Error(stack);
return 1;
