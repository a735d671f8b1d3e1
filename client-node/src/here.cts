/** Where this file is, for the CommonJS build. `here.mts` is its twin for the other; the build puts each where it belongs. */
export const here = __filename;
