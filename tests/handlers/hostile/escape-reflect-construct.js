// row: H9
// expect: EXECUTION_ERROR
return Reflect.construct((() => {}).constructor, ['return 1'])();
