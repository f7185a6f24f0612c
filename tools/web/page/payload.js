// Compressed sound under the header of a PCM file, which as samples would be noise: cohere_lite/extras/payload.py.

import {text} from './bytes.js';

export const PAYLOAD_BYTES = 1 << 17; // of the samples are looked at: two bursts of the longest kind
// How files of other kinds begin, in as many bytes as samples never hold there by chance.
const FILES = [
  [/^wvpk[^]{5}\x04/, 'WavPack'],
  [/^fLaC[\0\x80]\0\0\x22/, 'FLAC'],
  [/^OggS\0\x02\0\0/, 'Ogg'],
  [/^ID3[\x02-\x04]\0[\0-\x7f]{5}/, 'MP3'],
];
// MPEG audio, layer III: MPEG-1, then MPEG-2 and 2.5; by the bitrate index.
const KBPS = [
  [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
  [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];
const RATES_HZ = [44100, 48000, 32000]; // of MPEG-1
const HALVED = {3: 0, 2: 1, 0: 2}; // how often, by the version's code
// Words of 16 bits that begin a frame: those at its start, a mask for the one that follows, its value.
const BURSTS = [
  [0xf872, 0x4e1f, 0x0060, 0x0000, 'AC-3, DTS or the like (IEC 61937)'], // then the data type, 5 bits
  [0x7ffe, 0x8001, 0xfc00, 0xfc00, 'DTS'], // then: a normal frame, of all its samples
  [0x1fff, 0xe800, 0xfff0, 0x07f0, 'DTS'], // likewise, 14 bits to a word
];
const LEAST_WORDS = 256; // from one frame to the next

// head: the first bytes of a data chunk -> {name, start} of another file, or of frames of compressed sound, that it
// begins with: what they are, after how many bytes; null where there are none.
export function findPayload(head, coding) {
  if (coding.blockFrames !== 1) return null;
  const name = fileIn(head);
  return name ? {name, start: 0} : burstsIn(head, coding);
}

function fileIn(head) {
  const known = FILES.find(([pattern]) => pattern.test(text(head, 0, 10)));
  if (known) return known[1];
  let at = 0;
  for (let i = 0; i < 4; i++) {
    const length = mp3FrameBytes(head, at);
    if (length === 0) return null;
    at += length;
  }
  return 'MP3';
}

// The length of the MPEG layer III frame that begins there; 0 if none does. (ISO/IEC 11172-3, 2.4.1.3)
function mp3FrameBytes(head, at) {
  if (at + 4 > head.length) return 0;
  const bits = new DataView(head.buffer, head.byteOffset).getUint32(at);
  const [version, layer, bitrate, rate] = [(bits >> 19) & 3, (bits >> 17) & 3, (bits >> 12) & 15, (bits >> 10) & 3];
  if (bits >>> 21 !== 0x7ff || version === 1 || layer !== 1 || [0, 15].includes(bitrate) || rate === 3) return 0;
  const isMpeg1 = version === 3;
  const rateHz = RATES_HZ[rate] >> HALVED[version];
  const frame = ((isMpeg1 ? 144 : 72) * KBPS[isMpeg1 ? 0 : 1][bitrate] * 1000) / rateHz;
  return Math.floor(frame) + ((bits >> 9) & 1);
}

// Two frames at least, equally far apart.
function burstsIn(head, {blockBytes, channels, decode}) {
  const words = new Uint16Array(Math.floor(head.length / blockBytes) * channels);
  decode(head).forEach((samples, channel) => {
    samples.forEach((sample, i) => {
      // its upper 16 bits, whatever its width; NaN is 0
      words[i * channels + channel] = Math.floor(Math.min(Math.max(sample || 0, -1), 1 - 2 ** -15) * 2 ** 15);
    });
  });
  for (const ordered of [words, words.map((word) => (word << 8) | (word >> 8))]) {
    for (const [first, second, mask, value, name] of BURSTS) {
      const at = [];
      for (let i = 0; i < ordered.length - 2; i++) {
        if (ordered[i] === first && ordered[i + 1] === second && (ordered[i + 2] & mask) === value) at.push(i);
      }
      const step = at[1] - at[0];
      if (step >= LEAST_WORDS && at.every((place, i) => place === at[0] + i * step)) {
        return {name, start: (at[0] * blockBytes) / channels};
      }
    }
  }
  return null;
}
