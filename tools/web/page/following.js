// What follows a recording in its file, as cohere_lite/extras/chained.py: other recordings, tags, junk.

import {bytesAt, text} from './bytes.js';

const READ_BYTES = 1 << 20; // at once
const MOST_PADDING = 16; // bytes after a recording that are no chunk: some writers leave so many
const TRAILING_CHUNKS = 'LIST ID3 BEXT CUE FACT SMPL PEAK IXML JUNK PAD ACID AXML CHNA DISP INST _PMX APET'.split(' ');
// How WAV files begin, in so many bytes that samples never hold them by chance. ([^]: 0x91, which TextDecoder changes.)
const HEADER_BYTES = 16;
const HEADER =
  /(?:RIF[FX]|RF64|BW64)[^]{4}WAVE(?:fmt |ds64|bext|LIST|JUNK|junk|PAD |FLLR)|riff\.[^]\xcf\x11\xa5\xd6\(\xdb\x04\xc1/;

// A chunk that is known not to be samples, by its id.
export function isTrailing(id) {
  return TRAILING_CHUNKS.includes(id.toUpperCase().trimEnd());
}

// The bytes from start to end, whole units at once; they end where the header of another recording begins.
export async function* untilHeader(blob, start, end, unit = 1) {
  const latin1 = new TextDecoder('latin1'); // a character for each byte
  const atOnce = Math.max(1, Math.floor(READ_BYTES / unit)) * unit;
  for (let at = start; at < end; at += atOnce) {
    const count = Math.min(atOnce, end - at);
    const bytes = await bytesAt(blob, at, count + HEADER_BYTES); // a header may begin with the last of them
    const found = latin1.decode(bytes).search(HEADER);
    const isHeader = found >= 0 && found < count;
    yield bytes.subarray(0, isHeader ? found : count);
    if (isHeader) return;
  }
}

// The place after the chunk of `count` bytes at `at`, after a tag, or after what is neither: there begins another
// recording, or the file ends. warnings: of bytes that may have been sound.
export async function afterRest(blob, at, count, warnings) {
  const start = await bytesAt(blob, at, 10);
  const id = text(start);
  let isText = isTrailing(id) || id.startsWith('<');
  if (/^TAG|^ID3[\x02-\x04]/.test(id)) {
    count = id.startsWith('T') ? 128 : 10 + start.subarray(6).reduce((sum, byte) => 128 * sum + byte, 0);
    isText = true;
  } else if (!/^[ -~]{4}$/.test(id)) {
    count = Infinity;
  }
  let [passed, zeros] = [0, 0];
  for await (const part of untilHeader(blob, at, Math.min(at + count, blob.size))) {
    passed += part.length;
    zeros += part.filter((byte) => byte === 0).length;
  }
  if (!isText && passed < count && passed - zeros > MOST_PADDING) {
    warnings.push(`${passed} bytes follow the recording that are no part of it, and are left out`);
  }
  return at + passed;
}
