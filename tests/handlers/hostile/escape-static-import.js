// row: H9
// expect: COMPILATION_ERROR
import * as os from 'os';
return 1;
