/** Seeded values for property tests. */

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A whole number from 0 to `limit` - 1 (mulberry32). */
  below(limit: number): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  }
}

const CHARS = ['a', 'Z', '0', ' ', 'é', 'ß', '語', '👍', '\u0000', '"'];

/** Plain values that both codecs carry alike. */
export function randomValue(random: Random, depth: number): unknown {
  switch (random.below(depth > 0 ? 12 : 9)) {
    case 0:
      return null;
    case 1:
      return random.below(2) === 1;
    case 2:
      return random.below(300) - 150;
    case 3:
      return (random.below(2 ** 31) - 2 ** 30) * random.below(2 ** 20);
    case 4:
      return random.below(2 ** 31) / 1024;
    case 5:
      return randomString(random, 8);
    case 6:
      return randomString(random, 300);
    case 7:
      return Uint8Array.from({ length: random.below(40) }, () => random.below(256));
    case 8:
      return new Date(random.below(2 ** 31) * 1000 + random.below(1000));
    case 9:
    case 10:
      return Array.from({ length: random.below(20) }, () => randomValue(random, depth - 1));
    default: {
      const map: Record<string, unknown> = {};
      for (let count = random.below(20); count > 0; count--) map[`k${randomString(random, 40)}`] = randomValue(random, depth - 1);
      return map;
    }
  }
}

function randomString(random: Random, length: number): string {
  let text = '';
  for (let count = random.below(length); count > 0; count--) text += CHARS[random.below(CHARS.length)] as string;
  return text;
}
