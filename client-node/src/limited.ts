/** What a call asked for and does not get: the sidecar's own limit is narrower, and counts (SPEC 3, execute). */
import type { ExecuteRequest } from './requests.js';

/** A result that may say so. */
interface MayBeLimited {
  /** The limits that count although the call has asked for wider ones, by their names. Absent: it has what it asked for. */
  limited?: Record<string, number>;
}

/**
 * Tells with a result which limits count instead of the request's. `inForce`: by the sidecar's hello, which does not tell
 * `maxLogBytes`.
 */
export function tellLimited(result: MayBeLimited, request: ExecuteRequest, inForce: Readonly<Record<string, number>>): void {
  const limited: Record<string, number> = {};
  const { timeoutMs, limits = {} } = request;
  // 0 asks for none, as in the configuration
  const asked = timeoutMs === undefined ? limits : { ...limits, timeoutMs: timeoutMs === 0 ? Infinity : timeoutMs };
  for (const [name, wanted] of Object.entries(asked)) {
    const counts = inForce[name];
    if (counts === undefined || wanted <= counts || (name === 'timeoutMs' && counts === 0)) continue;
    limited[name] = counts;
  }
  if (Object.keys(limited).length > 0) result.limited = limited;
}
