// The bytes of a WAV file's data chunk -> frames, as cohere_lite/codings.py and extras/adpcm.py decode them.

import {NotWav} from './errors.js';

// Format tags: Microsoft's mmreg.h.
const [PCM, MS_ADPCM, IEEE_FLOAT, A_LAW, MU_LAW, IMA_ADPCM] = [1, 2, 3, 6, 7, 0x11];

// By format tag and bytes per sample: (DataView, byte offset, little-endian) -> the sample, -1..1.
const SAMPLES = {
  [`${PCM} 1`]: (view, at) => view.getUint8(at) / 2 ** 7 - 1, // unsigned, 128 is zero
  [`${PCM} 2`]: (view, at, little) => view.getInt16(at, little) / 2 ** 15,
  [`${PCM} 3`]: (view, at, little) => {
    const [low, middle, high] = little ? [at, at + 1, at + 2] : [at + 2, at + 1, at];
    return ((view.getInt8(high) << 16) | (view.getUint8(middle) << 8) | view.getUint8(low)) / 2 ** 23;
  },
  [`${PCM} 4`]: (view, at, little) => view.getInt32(at, little) / 2 ** 31,
  [`${IEEE_FLOAT} 4`]: (view, at, little) => view.getFloat32(at, little),
  [`${IEEE_FLOAT} 8`]: (view, at, little) => view.getFloat64(at, little),
  [`${A_LAW} 1`]: (view, at) => G711[A_LAW][view.getUint8(at)],
  [`${MU_LAW} 1`]: (view, at) => G711[MU_LAW][view.getUint8(at)],
};

// -> {blockBytes, blockFrames, channels, decode}. decode: Uint8Array of blocks, the last of which may be incomplete ->
// a Float64Array for each channel, of the whole frames in them. Throws NotWav for a coding that is not known.
export function findCoding(formatTag, bits, channels, blockAlign, littleEndian) {
  const adpcm = ADPCM[formatTag];
  if (adpcm && channels <= 2 && blockAlign >= adpcm.headBytes * channels) {
    return adpcmCoding(adpcm, channels, blockAlign);
  }
  let sampleBytes = formatTag === A_LAW || formatTag === MU_LAW ? 1 : Math.ceil(bits / 8);
  if (formatTag === PCM && bits === 24 && blockAlign === 4 * channels) sampleBytes = 4; // in the upper bytes
  const read = SAMPLES[`${formatTag} ${sampleBytes}`];
  if (!read) {
    const tag = formatTag.toString(16).toUpperCase().padStart(4, '0');
    throw new NotWav(`WAV with format tag 0x${tag}, ${bits} bits per sample, ${channels} channels`);
  }
  const blockBytes = channels * sampleBytes;
  const decode = (bytes) => {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const frames = Math.floor(bytes.length / blockBytes);
    return Array.from({length: channels}, (_, channel) => {
      const samples = new Float64Array(frames);
      for (let i = 0; i < frames; i++) samples[i] = read(view, i * blockBytes + channel * sampleBytes, littleEndian);
      return samples;
    });
  };
  return {blockBytes, blockFrames: 1, channels, decode};
}

// G.711, tables 1 (A-law) and 2 (mu-law): sign, 3 bits of exponent, 4 of mantissa.
const G711 = Object.fromEntries(
  [A_LAW, MU_LAW].map((tag) => [
    tag,
    Float64Array.from({length: 256}, (_, byte) => {
      const code = byte ^ (tag === A_LAW ? 0x55 : 0x7f);
      const [exponent, mantissa] = [(code >> 4) & 7, code & 15];
      let magnitude = ((2 * mantissa + 33) << exponent) - 33;
      if (tag === A_LAW) {
        magnitude = 2 * (exponent === 0 ? 2 * mantissa + 1 : (2 * mantissa + 33) << (exponent - 1));
      }
      return (code & 0x80 ? magnitude : -magnitude) / 2 ** 13;
    }),
  ]),
);

function adpcmCoding({headBytes, headFrames, codesAtOnce, decodeBlock}, channels, blockBytes) {
  const codes = Math.floor((2 * (blockBytes - headBytes * channels)) / channels);
  const decode = (bytes) => {
    const frames = Array.from({length: channels}, () => []);
    for (let at = 0; at + headBytes * channels <= bytes.length; at += blockBytes) {
      decodeBlock(bytes.subarray(at, at + blockBytes), channels, frames);
    }
    return frames.map((samples) => Float64Array.from(samples, (sample) => sample / 2 ** 15));
  };
  return {blockBytes, blockFrames: headFrames + codes - (codes % codesAtOnce), channels, decode};
}

// IMA, "Recommended Practices for Enhancing Digital Audio Compatibility", 1992: step sizes, and how a code moves them.
const IMA_STEPS = [
  7, 8, 9, 10, 11, 12, 13, 14, 16, 17, 19, 21, 23, 25, 28, 31, 34, 37, 41, 45, 50, 55, 60, 66, 73, 80, 88, 97, 107, 118,
  130, 143, 157, 173, 190, 209, 230, 253, 279, 307, 337, 371, 408, 449, 494, 544, 598, 658, 724, 796, 876, 963, 1060,
  1166, 1282, 1411, 1552, 1707, 1878, 2066, 2272, 2499, 2749, 3024, 3327, 3660, 4026, 4428, 4871, 5358, 5894, 6484,
  7132, 7845, 8630, 9493, 10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794, 32767,
];
const IMA_INDEX_CHANGE = [-1, -1, -1, -1, 2, 4, 6, 8];

// Per channel 4 bytes: first value, index, 0. Then in turn 4 bytes = 8 codes of each channel, low half first.
function decodeImaBlock(block, channels, frames) {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const groups = Math.floor(block.length / (4 * channels)) - 1;
  for (let channel = 0; channel < channels; channel++) {
    let value = view.getInt16(4 * channel, true);
    let index = Math.min(block[4 * channel + 2], IMA_STEPS.length - 1);
    frames[channel].push(value);
    for (let i = 0; i < 8 * groups; i++) {
      const byte = block[4 * channels * (1 + (i >> 3)) + 4 * channel + ((i >> 1) & 3)];
      const code = i % 2 ? byte >> 4 : byte & 15;
      const step = IMA_STEPS[index];
      const bit = (n) => (code >> n) & 1;
      const change = (step >> 3) + (step >> 2) * bit(0) + (step >> 1) * bit(1) + step * bit(2);
      value = clipped(value + (code & 8 ? -change : change));
      index = Math.min(Math.max(index + IMA_INDEX_CHANGE[code & 7], 0), IMA_STEPS.length - 1);
      frames[channel].push(value);
    }
  }
}

// Microsoft, "New Multimedia Data Types and Data Techniques", 1994: weights of the two samples before; how a code
// changes the step; in 1/256.
const MS_WEIGHTS = [
  [256, 0],
  [512, -256],
  [0, 0],
  [192, 64],
  [240, 0],
  [460, -208],
  [392, -232],
];
const MS_STEP_CHANGE = [230, 230, 230, 230, 307, 409, 512, 614, 768, 614, 512, 409, 307, 230, 230, 230];

// For all channels in turn: 1 byte number of the weights, 2 step, 2 second sample, 2 first sample. Then the codes of
// one frame after the other, high half first.
function decodeMsBlock(block, channels, frames) {
  const view = new DataView(block.buffer, block.byteOffset, block.byteLength);
  const body = 7 * channels;
  const codes = Math.floor((2 * (block.length - body)) / channels);
  for (let channel = 0; channel < channels; channel++) {
    const [weightOfLast, weightOfSecond] = MS_WEIGHTS[block[channel]] ?? MS_WEIGHTS[0];
    let [step, last, second] = [0, 1, 2].map((i) => view.getInt16(channels + 2 * (channels * i + channel), true));
    frames[channel].push(second, last);
    for (let i = 0; i < codes; i++) {
      const place = i * channels + channel;
      const byte = block[body + (place >> 1)];
      const code = place % 2 ? byte & 15 : byte >> 4;
      const predicted = (last * weightOfLast + second * weightOfSecond) >> 8;
      [last, second] = [clipped(predicted + ((code ^ 8) - 8) * step), last];
      // a step beyond 16 bits wraps around, as in libsndfile
      step = Math.max((((MS_STEP_CHANGE[code] * step) >> 8) << 16) >> 16, 16);
      frames[channel].push(last);
    }
  }
}

function clipped(value) {
  return Math.min(Math.max(value, -(2 ** 15)), 2 ** 15 - 1);
}

const ADPCM = {
  [IMA_ADPCM]: {headBytes: 4, headFrames: 1, codesAtOnce: 8, decodeBlock: decodeImaBlock},
  [MS_ADPCM]: {headBytes: 7, headFrames: 2, codesAtOnce: 1, decodeBlock: decodeMsBlock},
};
