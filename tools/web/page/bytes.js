// A file's bytes, read where they are wanted, and the names that they spell.

export async function bytesAt(blob, start, count) {
  return new Uint8Array(await blob.slice(start, start + count).arrayBuffer());
}

export function text(bytes, start = 0, count = 4) {
  return String.fromCharCode(...bytes.subarray(start, start + count));
}
