// Long audio -> pieces that the model can take, cut at quiet points by the reference's rule: cohere_lite/cut.py.

import {SAMPLE_RATE} from './mel.js';

export const MAX_CHUNK_S = 35;
export const SEARCH_S = 5; // the cut is looked for in the last 5 s of a full chunk
export const QUIET_WINDOW = 1600; // samples, 100 ms

export class Chunks {
  // Up to maxChunkS seconds a recording stays whole.
  constructor(maxChunkS) {
    this.chunk = Math.round(maxChunkS * SAMPLE_RATE);
    this.held = new Held();
  }

  // The next samples, Float32Array at 16 kHz -> the chunks that they complete.
  push(samples) {
    this.held.push(samples);
    const start = this.chunk - SEARCH_S * SAMPLE_RATE;
    const chunks = [];
    while (this.held.length > this.chunk) {
      chunks.push(this.held.take(start + quietest(this.held.peek(start, this.chunk))));
    }
    return chunks;
  }

  // The last chunk, empty if there was no sample at all.
  finish() {
    return [this.held.take(this.held.length)];
  }
}

// Samples that wait for the end of their piece.
export class Held {
  constructor() {
    this.buffer = new Float32Array(SAMPLE_RATE);
    this.length = 0;
  }

  push(samples) {
    if (this.length + samples.length > this.buffer.length) {
      const larger = new Float32Array(2 * (this.length + samples.length));
      larger.set(this.buffer.subarray(0, this.length));
      this.buffer = larger;
    }
    this.buffer.set(samples, this.length);
    this.length += samples.length;
  }

  // A copy of a stretch.
  peek(start, end) {
    return this.buffer.slice(start, Math.min(end, this.length));
  }

  // The first n, which are then held no more.
  take(n) {
    const samples = this.peek(0, n);
    this.buffer.copyWithin(0, n, this.length);
    this.length -= n;
    return samples;
  }
}

// The first sample of the quietest window; of equally quiet ones, the first. As in the reference never the last one.
export function quietest(samples) {
  const squares = Float32Array.from(samples, (sample) => sample * sample);
  let [best, least] = [0, Infinity];
  const count = Math.floor((samples.length - QUIET_WINDOW) / QUIET_WINDOW);
  for (let window = 0; window < count; window++) {
    const sum = pairwiseSum(squares, window * QUIET_WINDOW, QUIET_WINDOW);
    const loudness = Math.fround(Math.sqrt(Math.fround(sum / QUIET_WINDOW)));
    if (loudness < least) [best, least] = [window, loudness];
  }
  return best * QUIET_WINDOW;
}

// As NumPy adds float32 numbers: in 8 lanes, and halves of what is longer than 128. What ties in Python ties here.
export function pairwiseSum(values, start, n) {
  const f32 = Math.fround;
  if (n <= 128) {
    const lanes = values.slice(start, start + 8);
    let i = 8;
    for (; i + 8 <= n; i += 8) for (let lane = 0; lane < 8; lane++) lanes[lane] += values[start + i + lane];
    const pairs = [0, 2, 4, 6].map((lane) => f32(lanes[lane] + lanes[lane + 1]));
    let sum = f32(f32(pairs[0] + pairs[1]) + f32(pairs[2] + pairs[3]));
    for (; i < n; i++) sum = f32(sum + values[start + i]);
    return sum;
  }
  const half = Math.floor(n / 2) - (Math.floor(n / 2) % 8);
  return f32(pairwiseSum(values, start, half) + pairwiseSum(values, start + half, n - half));
}
