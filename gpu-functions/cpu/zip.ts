// The members of a ZIP archive (APPNOTE 6.3). NumPy's .npz and PyTorch's .pt files are archives whose members lie in them as they are
// (method 0), so that arrays in them can be read by range.
import { closeSync, fstatSync, openSync, readSync } from "node:fs";

const END = 0x06054b50;
const ENTRY = 0x02014b50;
const LOCAL = 0x04034b50;
const DEFLATE = 8;
/** The end record has 22 bytes and a comment of up to 64 KiB behind it. */
const TAIL = 22 + 65_535;
/** Stands for a number that is kept elsewhere, in archives of more than 4 GiB. */
const LARGE = 0xffffffff;

export interface ZipMember {
  readonly name: string;
  /** Of its first byte, from the start of the file. */
  readonly offset: number;
  /** That it takes in the file. */
  readonly bytes: number;
  /** Whether they are a DEFLATE stream (method 8) and not the member itself. */
  readonly deflated: boolean;
}

export interface ZipFile {
  readonly members: readonly ZipMember[];
  /** @throws Error when the file ends before. */
  read(offset: number, length: number): Buffer;
  /** Throws an Error with the file and a reason. */
  fail(reason: string): never;
}

/**
 * Opens an archive for as long as `use` runs.
 * @param written what writes such files without compression, for the sentence that refuses a compressed one; null takes both.
 * @throws Error with the file and the reason: unreadable, truncated, damaged, compressed.
 */
export function withZip<T>(path: string, written: string | null, use: (zip: ZipFile) => T): T {
  const fail = (reason: string): never => {
    throw new Error(`${path}: ${reason}`);
  };
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (cause) {
    throw new Error(`${path}: the file cannot be read`, { cause });
  }
  try {
    const { size } = fstatSync(fd);
    const read = (offset: number, length: number): Buffer => {
      if (offset < 0 || offset + length > size) return fail("it is truncated");
      const bytes = Buffer.alloc(length);
      for (let done = 0; done < length; ) done += readSync(fd, bytes, done, length - done, offset + done) || fail("it is truncated");
      return bytes;
    };
    return use({ members: membersOf(read, size, written, fail), read, fail });
  } finally {
    closeSync(fd);
  }
}

function membersOf(
  read: (offset: number, length: number) => Buffer,
  size: number,
  written: string | null,
  fail: (reason: string) => never,
): ZipMember[] {
  const tail = read(Math.max(0, size - TAIL), Math.min(size, TAIL));
  let end = tail.length - 22;
  while (end >= 0 && tail.readUInt32LE(end) !== END) end--;
  if (end < 0) return fail("not a ZIP archive, or the end of it is missing");
  const [count, length, start] = [tail.readUInt16LE(end + 10), tail.readUInt32LE(end + 12), tail.readUInt32LE(end + 16)];
  if (start === LARGE) return fail("archives of more than 4 GiB are not supported: convert it to safetensors");
  const directory = read(start, length);
  const members: ZipMember[] = [];
  for (let i = 0, at = 0; i < count; i++) {
    if (at + 46 > length || directory.readUInt32LE(at) !== ENTRY) return fail("its directory is damaged");
    const [method, bytes, local] = [directory.readUInt16LE(at + 10), directory.readUInt32LE(at + 20), directory.readUInt32LE(at + 42)];
    const nameLength = directory.readUInt16LE(at + 28);
    const name = directory.subarray(at + 46, at + 46 + nameLength).toString("utf8");
    at += 46 + nameLength + directory.readUInt16LE(at + 30) + directory.readUInt16LE(at + 32);
    if (method !== 0 && written !== null) return fail(`'${name}' is compressed: write the file with ${written}`);
    if (method !== 0 && method !== DEFLATE) return fail(`'${name}' is packed in a way that is not supported: use DEFLATE, as zip does`);
    const header = read(local, 30);
    if (header.readUInt32LE(0) !== LOCAL) return fail("its directory is damaged");
    const offset = local + 30 + header.readUInt16LE(26) + header.readUInt16LE(28);
    if (offset + bytes > size) return fail("it is truncated");
    members.push({ name, offset, bytes, deflated: method === DEFLATE });
  }
  return members;
}
