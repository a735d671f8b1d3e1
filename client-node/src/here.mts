/** Where this file is, for the build of modules; see `here.cts`. A bundler may leave nothing of it. */
export const here: string | undefined = import.meta.url;
