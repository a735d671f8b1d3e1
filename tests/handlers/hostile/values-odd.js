// row: H8
// expect: success
// value: 10
return [NaN, -0, Infinity, 2n ** 63n - 1n, -(2n ** 63n), "\ud800", undefined, null, () => 1, Symbol("s")].length;
