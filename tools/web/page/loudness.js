// Where there may be speech: loudness against the quietest moment of the last seconds. cohere_lite/extras/loudness.py
// says why, and where the numbers come from.

import {makeFft, twoPowers} from './fft.js';
import {SAMPLE_RATE} from './mel.js';
import {joined} from './resample.js';

export const FRAME = 320; // samples, 20 ms
export const THRESHOLD_DB = 4.5;
const WINDOW = 2 * FRAME;
const [LOWEST, HIGHEST] = [300, 3400].map((hz) => (hz * WINDOW) / SAMPLE_RATE); // FFT bins of the telephone's band
const HANN = Float64Array.from({length: WINDOW}, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / WINDOW));
const SQUARES = HANN.reduce((sum, weight) => sum + weight * weight, 0);
const SMOOTH = 4; // windows
const FLOOR_FRAMES = (10 * SAMPLE_RATE) / FRAME;
const UNKNOWN_FRAMES = (2 * SAMPLE_RATE) / FRAME; // before these the noise floor is not known
const INAUDIBLE_DB = -90;
const fft = makeFft(WINDOW);

export class Loudness {
  constructor() {
    this.held = new Float32Array(FRAME).fill(NaN); // what was before the recording is not known
    this.powers = new Array(SMOOTH - 1).fill(NaN);
    this.last = new Array(FLOOR_FRAMES - 1).fill(NaN); // dB
    this.unknown = UNKNOWN_FRAMES; // still to come
  }

  // The next samples -> {loudness, floor} in dB of each frame that they complete; NaN, -Infinity where not known.
  push(samples) {
    const all = joined(this.held, samples);
    const count = Math.floor(all.length / FRAME) - 1;
    this.held = all.slice(count * FRAME);
    return bandPowers(all, count).map((power) => this.level(power));
  }

  level(power) {
    this.powers.push(power);
    const loudness = 10 * Math.log10(this.powers.reduce((sum, value) => sum + value, 0) / SMOOTH + 1e-20);
    this.powers.shift();
    this.last.push(loudness);
    let floor = NaN;
    for (const value of this.last) if (!(floor <= value) && !Number.isNaN(value)) floor = value;
    this.last.shift();
    return {loudness, floor: this.unknown-- > 0 ? -Infinity : floor};
  }
}

// Whether a frame stands out, and is audible at all.
export function isSpeech({loudness, floor}, thresholdDb = THRESHOLD_DB) {
  return loudness > Math.max(floor + thresholdDb, INAUDIBLE_DB);
}

// Whether anything stands out in a stretch, in hindsight: the floor is what it is at its end, or the quietest in it.
export function holdsSpeech(levels, thresholdDb = THRESHOLD_DB) {
  if (levels.length === 0) return false;
  let floor = levels.at(-1).floor;
  for (const {loudness} of levels) if (loudness < floor) floor = loudness;
  return levels.some(({loudness}) => isSpeech({loudness, floor}, thresholdDb));
}

// The mean square of what is in the band, for each window of two frames.
function bandPowers(samples, count) {
  const found = [];
  const real = new Float64Array(WINDOW);
  const imaginary = new Float64Array(WINDOW);
  for (let i = 0; i < count; i += 2) {
    // Two windows in one transform; NaN in one of them must not spoil the other.
    const [first, second] = [i, i + 1].map((frame) => samples.subarray(frame * FRAME, frame * FRAME + WINDOW));
    const isKnown = !Number.isNaN(first[0]);
    for (let k = 0; k < WINDOW; k++) {
      real[k] = isKnown ? first[k] * HANN[k] : 0;
      imaginary[k] = i + 1 < count ? second[k] * HANN[k] : 0;
    }
    fft(real, imaginary);
    const powers = twoPowers(real, imaginary, LOWEST, HIGHEST).map((band) => {
      return (2 * band.reduce((sum, power) => sum + power, 0)) / (WINDOW * SQUARES);
    });
    found.push(isKnown ? powers[0] : NaN);
    if (i + 1 < count) found.push(powers[1]);
  }
  return found;
}
