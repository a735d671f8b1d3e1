// row: H10
// expect: PERMISSION_DENIED
await $ext['a\nERROR forged\u001b[2J'].b();
