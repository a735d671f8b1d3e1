// row: H9
// expect: EXECUTION_ERROR
const F = (() => {}).constructor;
class G extends F { constructor() { super('return 1'); } }
return new G()();
