// Reading a file's bytes in order, and never beyond their end.
import { refuse } from "./direction.ts";

/** A place in a file's bytes; numbers are little-endian unless said. Every read beyond the end is a TillerError. */
export class Cursor {
  readonly bytes: Uint8Array;
  private readonly view: DataView;
  private readonly what: string;
  at: number;

  /** @param what the kind of file, for the sentence that refuses a truncated one. */
  constructor(bytes: Uint8Array, what: string, at = 0) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.what = what;
    this.at = at;
  }

  get left(): number {
    return this.bytes.length - this.at;
  }

  /** Goes over `length` bytes and says where they began. */
  skip(length: number): number {
    if (!(length <= this.left)) refuse(`The ${this.what} is truncated: it ends before its contents do. Upload the whole file.`);
    this.at += length;
    return this.at - length;
  }

  take(length: number): Uint8Array {
    const start = this.skip(length);
    return this.bytes.subarray(start, start + length);
  }

  text(length: number): string {
    return new TextDecoder().decode(this.take(length));
  }

  u8(): number {
    return this.view.getUint8(this.skip(1));
  }

  u16(): number {
    return this.view.getUint16(this.skip(2), true);
  }

  u32(): number {
    return this.view.getUint32(this.skip(4), true);
  }

  i32(): number {
    return this.view.getInt32(this.skip(4), true);
  }

  /** A count or a length: larger than any file when it does not fit a double, so that skipping it is refused. */
  u64(): number {
    return Number(this.view.getBigUint64(this.skip(8), true));
  }

  f64be(): number {
    return this.view.getFloat64(this.skip(8), false);
  }
}

/** Whether the bytes begin with these characters (codes below 256). */
export const beginsWith = (bytes: Uint8Array, magic: string): boolean =>
  bytes.length >= magic.length && [...magic].every((char, i) => bytes[i] === char.charCodeAt(0));

/** One after another. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const whole = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
