// The counter-based generator of design 4: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
// A draw depends on (seed, position) alone, so a row's text never depends on what shares its batch, and any engine can redo it.

const MULTIPLIER_0 = 0xd2511f53;
const MULTIPLIER_1 = 0xcd9e8d57;
const WEYL_0 = 0x9e3779b9;
const WEYL_1 = 0xbb67ae85;
const ROUNDS = 10;

/** Upper 32 bits of the 64-bit product of two uint32. */
function multiplyHigh(a: number, b: number): number {
  const [aHigh, aLow, bHigh, bLow] = [a >>> 16, a & 0xffff, b >>> 16, b & 0xffff];
  const low = aLow * bLow;
  const middle = aHigh * bLow + (low >>> 16);
  const other = aLow * bHigh + (middle & 0xffff);
  return (aHigh * bHigh + Math.floor(middle / 65536) + Math.floor(other / 65536)) >>> 0;
}

/** Philox4x32-10: four uint32 from a 128-bit counter and a 64-bit key, both little-endian words. */
export function philox(
  counter: readonly [number, number, number, number],
  key: readonly [number, number],
): [number, number, number, number] {
  let [c0, c1, c2, c3] = counter.map((word) => word >>> 0) as [number, number, number, number];
  let [k0, k1] = [key[0] >>> 0, key[1] >>> 0];
  for (let round = 0; round < ROUNDS; round++) {
    const [high0, low0] = [multiplyHigh(MULTIPLIER_0, c0), Math.imul(MULTIPLIER_0, c0) >>> 0];
    const [high1, low1] = [multiplyHigh(MULTIPLIER_1, c2), Math.imul(MULTIPLIER_1, c2) >>> 0];
    [c0, c1, c2, c3] = [(high1 ^ c1 ^ k0) >>> 0, low1, (high0 ^ c3 ^ k1) >>> 0, low0];
    k0 = (k0 + WEYL_0) >>> 0;
    k1 = (k1 + WEYL_1) >>> 0;
  }
  return [c0, c1, c2, c3];
}

/**
 * The draw in [0, 1) for the generated token at `position` (0 is the first): the upper 24 bits of Philox's first word over 2^24,
 * so that it is exact in float32 too. Key: the seed as a 64-bit two's complement integer; counter: (position low, high, 0, 0).
 */
export function uniform(seed: number, position: number): number {
  const words = (value: number): [number, number] => {
    const bits = BigInt.asUintN(64, BigInt(Math.trunc(value)));
    return [Number(bits & 0xffffffffn), Number(bits >> 32n)];
  };
  const [low, high] = words(position);
  return (philox([low, high, 0, 0], words(seed))[0] >>> 8) / 2 ** 24;
}
