// The members of a ZIP archive whose bytes lie in it as they are (APPNOTE 6.3, method 0), as torch.save writes them:
// https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
import { beginsWith, Cursor } from "./bytes.ts";
import { refuse, shown } from "./direction.ts";

const [END, ENTRY, LOCAL] = [0x06054b50, 0x02014b50, 0x04034b50];
/** The end record has 22 bytes and a comment of up to 64 KiB behind it. */
const END_BYTES = 22;
const MOST_COMMENT = 65_535;
const MOST_MEMBERS = 2048;

export const isZip = (bytes: Uint8Array): boolean => beginsWith(bytes, "PK\x03\x04");

/**
 * The bytes of each member, by its name.
 * @throws TillerError `invalid_request`: truncated, damaged, compressed, too many members.
 */
export function membersOf(bytes: Uint8Array): ReadonlyMap<string, Uint8Array> {
  const [directory, count] = directoryOf(bytes);
  const members = new Map<string, Uint8Array>();
  for (let i = 0; i < count; i++) {
    if (directory.u32() !== ENTRY) refuse("The archive's directory is damaged: save the file again.");
    directory.skip(6);
    const method = directory.u16();
    directory.skip(12);
    const length = directory.u32();
    const [nameLength, extra, comment] = [directory.u16(), directory.u16(), directory.u16()];
    directory.skip(8);
    const local = new Cursor(bytes, "archive", directory.u32());
    const name = directory.text(nameLength);
    directory.skip(extra + comment);
    if (method !== 0) refuse(`${shown(name)} in the archive is compressed; the archives of torch.save, which are not, are read.`);
    if (members.has(name)) refuse(`${shown(name)} is twice in the archive: save the file again.`);
    if (local.u32() !== LOCAL) refuse("The archive's directory is damaged: save the file again.");
    local.skip(22);
    local.skip(local.u16() + local.u16());
    members.set(name, local.take(length));
  }
  return members;
}

/** The list of the members, and how many they are. */
function directoryOf(bytes: Uint8Array): [directory: Cursor, count: number] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = bytes.length - END_BYTES; at >= Math.max(0, bytes.length - END_BYTES - MOST_COMMENT); at--) {
    if (view.getUint32(at, true) !== END) continue;
    const count = view.getUint16(at + 10, true);
    if (count > MOST_MEMBERS) refuse(`The archive has ${count} members; at most ${MOST_MEMBERS} are read.`);
    return [new Cursor(bytes, "archive", view.getUint32(at + 16, true)), count];
  }
  return refuse("The archive is truncated: it ends before its directory does. Upload the whole file.");
}
