// WAV files -> blocks of frames, read piece by piece: cohere_lite/wav.py, for files (not pipes).

import {bytesAt, text} from './bytes.js';
import {findCoding} from './codings.js';
import {AudioError, NotWav} from './errors.js';
import {afterRest, isTrailing, untilHeader} from './following.js';
import {findPayload, PAYLOAD_BYTES} from './payload.js';

const EXTENSIBLE = 0xfffe;
const GUID_TAIL = '00000010800000aa00389b71'; // of a SubFormat whose first field is the format tag; see parseFormat
const MOST_ZEROS = 1 << 16; // bytes between chunks before the first sample
// Writers that cannot seek back leave placeholders in the data chunk's size: near 2^31 and 2^32, of Wave64 2^63 - 1.
const NO_FILE_IS_LONGER = 2 ** 62;
const isUnknown = (size) => (size >= 0x7fff0000 && size < 0x80010000) || size >= 0xffff0000;

// How a kind of WAV file frames its chunks. header: bytes; counted: of them, included in a chunk's size; start: bytes
// before the first chunk; unknown: sizes that mean "to the end of the file".
const RIFF = {littleEndian: true, header: 8, counted: 0, start: 12, unknown: isUnknown};
const CONTAINERS = {
  RIFF,
  RF64: RIFF, // EBU Tech 3306; the size is in the ds64 chunk
  BW64: RIFF, // ITU-R BS.2088; likewise
  RIFX: {...RIFF, littleEndian: false},
  riff: {littleEndian: true, header: 24, counted: 24, start: 40, unknown: () => false}, // Sony Wave64: GUIDs as ids
};

// blob: a File -> {rate, channels, duration, blocks, warnings}. duration: seconds;  blocks: an async generator of a
// Float64Array per channel;  warnings: complete when blocks has ended. Throws AudioError where there is no usable
// header, NotWav for another kind of file or coding.
export async function openWav(blob) {
  const start = await bytesAt(blob, 0, 40);
  if (start.length === 0) throw new AudioError('empty (0 bytes)');
  const container = CONTAINERS[text(start)];
  if (container && start.length < container.start) {
    throw new AudioError(`a WAV file that ends after ${start.length} bytes`);
  }
  if (!isStart(start)) throw new NotWav('not a WAV file');
  const data = await findData(blob, container, container.start);
  if (!data) throw new AudioError('a WAV file with no data chunk: it was cut short, or never written');
  await refusePayload(blob, data);
  const warnings = [];
  const duration = (held(blob, data) / data.coding.blockBytes) * (data.coding.blockFrames / data.rate);
  return {rate: data.rate, channels: data.coding.channels, duration, blocks: chained(blob, data, warnings), warnings};
}

function isStart(bytes) {
  const container = CONTAINERS[text(bytes, 0)];
  return container !== undefined && text(bytes, container.header).toUpperCase() === 'WAVE';
}

// How many bytes of a data chunk there are.
function held(blob, data) {
  return Math.min(data.size || Infinity, blob.size - data.start);
}

// Throws NotWav where compressed sound is in the place of the samples.
async function refusePayload(blob, data) {
  const end = data.start + held(blob, data);
  const head = await bytesAt(blob, data.start, Math.min(PAYLOAD_BYTES, end - data.start));
  const found = findPayload(head, data.coding);
  if (!found) return;
  throw new NotWav(`a WAV file with ${found.name} in place of its samples`, blob.slice(data.start + found.start, end));
}

// The data chunk that follows `at`: {container, coding, rate, start, size}, null where there is none. size 0: not known;
// before: the data chunk that was read before, of the same recording or of one that this one follows;  warnings: of
// what lies between them and is left out.
async function findData(blob, container, at, before = null, warnings = []) {
  let {coding, rate} = before ?? {coding: null, rate: 0};
  let longSize = 0;
  for (;;) {
    at = await afterZeros(blob, at, before ? Infinity : MOST_ZEROS);
    if (isChunk(text(await bytesAt(blob, at + 1, 4)))) at += 1; // what fills up an odd chunk, and should be zero
    const header = await bytesAt(blob, at, 40);
    if (header.length < container.header) return null;
    const id = text(header);
    if (before && (id in CONTAINERS || id === 'fLaC' || id === 'OggS')) {
      if (!isStart(header)) throw new AudioError('it is no WAV file');
      container = CONTAINERS[id];
      [coding, longSize] = [null, 0];
      at += container.start;
      continue;
    }
    const size = Math.max(0, chunkSize(header, container) - container.counted);
    const start = at + container.header;
    if (id === 'data') {
      if (!coding) throw new AudioError('a WAV file without a fmt chunk before its data chunk: a damaged header');
      const promised = container.unknown(size) ? longSize : size;
      return {container, coding, rate, start, size: promised < NO_FILE_IS_LONGER ? promised : 0};
    }
    const body = await bytesAt(blob, start, Math.min(size, 40));
    const view = new DataView(body.buffer);
    if (id === 'fmt ') ({coding, rate} = parseFormat(body, view, container.littleEndian));
    if (id === 'ds64' && body.length >= 16) longSize = Number(view.getBigUint64(8, true));
    at = before ? await afterRest(blob, at, container.header + size, warnings) : start + size;
  }
}

function isChunk(id) {
  return ['data', 'fmt '].includes(id.toLowerCase()) || isTrailing(id);
}

// The frames of a data chunk, and of those that follow it: more of the recording, or others laid end to end.
async function* chained(blob, first, warnings) {
  let data = first;
  let end = yield* blocks(blob, data, warnings);
  try {
    while ((data = await findData(blob, data.container, end, data, warnings)) !== null) {
      if (described(data) !== described(first)) {
        throw new AudioError(`it has ${described(data)}, the first one ${described(first)}`);
      }
      await refusePayload(blob, data);
      end = yield* blocks(blob, data, warnings);
    }
  } catch (error) {
    if (!(error instanceof AudioError)) throw error;
    warnings.push(`another recording follows, which is left out: ${error.message}`);
  }
}

function described({coding, rate}) {
  return `${coding.channels} channel${coding.channels === 1 ? '' : 's'} at ${rate} Hz`;
}

// The place of the next byte that is not zero: some writers pad chunks to an even size, others do not.
async function afterZeros(blob, at, most) {
  for (const end = at + most; at < end;) {
    const part = await bytesAt(blob, at, MOST_ZEROS);
    const found = part.findIndex((byte) => byte !== 0);
    if (found >= 0) return at + found;
    if (part.length === 0) return at;
    at += part.length;
  }
  return blob.size;
}

function chunkSize(header, container) {
  const view = new DataView(header.buffer);
  return container.header === 8 ? view.getUint32(4, container.littleEndian) : Number(view.getBigUint64(16, true));
}

function parseFormat(body, view, little) {
  if (body.length < 16) {
    throw new AudioError(`a WAV file with a fmt chunk of ${body.length} bytes instead of 16 or more`);
  }
  let formatTag = view.getUint16(0, little);
  const channels = view.getUint16(2, little);
  const rate = view.getUint32(4, little);
  if (formatTag === EXTENSIBLE && body.length >= 40) {
    const tail = [view.getUint16(28, little), view.getUint16(30, little)].map((n) => n.toString(16).padStart(4, '0'));
    if (tail.join('') + hex(body.subarray(32, 40)) === GUID_TAIL) formatTag = view.getUint32(24, little);
  }
  if (channels === 0 || rate === 0) {
    throw new AudioError(`a WAV file whose fmt chunk says ${channels} channels at ${rate} Hz: a damaged header`);
  }
  const coding = findCoding(formatTag, view.getUint16(14, little), channels, view.getUint16(12, little), little);
  return {coding, rate};
}

// The frames of a data chunk; returns the place of its end, which is where another header begins at the latest.
async function* blocks(blob, data, warnings) {
  const {blockBytes, blockFrames, decode} = data.coding;
  // With a data size of 0, one of these next says that the recording really is empty.
  if (data.size === 0 && isTrailing(text(await bytesAt(blob, data.start, 4)))) return data.start;
  let found = 0;
  for await (const part of untilHeader(blob, data.start, data.start + held(blob, data), blockBytes)) {
    found += part.length;
    yield decode(part);
  }
  const seconds = (bytes) => (((bytes / blockBytes) * blockFrames) / data.rate).toFixed(2);
  if (found < data.size) {
    warnings.push(
      `data chunk promises ${data.size} bytes (${seconds(data.size)} s), the file holds ${found} ` +
        `(${seconds(found)} s): the recording was cut short; using what is there`,
    );
  } else if (found % blockBytes) {
    const unit = blockFrames === 1 ? 'frame' : 'block';
    const extra = found % blockBytes;
    warnings.push(`the last ${unit} has ${extra} of its ${blockBytes} bytes: using the whole samples`);
  }
  return data.start + found;
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
