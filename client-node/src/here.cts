/** CommonJS on purpose, in both builds: `require.resolve` from this package, without import.meta. */
export function resolvePackage(id: string): string | undefined {
  try {
    return require.resolve(id);
  } catch {
    return undefined;
  }
}
