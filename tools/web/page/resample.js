// Any sampling rate -> 16 kHz, as cohere_lite/resample.py does it: a Kaiser-windowed sinc. With 16000 / rate =
// up / down in lowest terms, output m lies at m * down / up on the input's time axis, so weights repeat every `up`
// outputs.

import {AudioError} from './errors.js';
import {SAMPLE_RATE} from './mel.js';

const MIN_RATE = 1000; // Hz
const MAX_RATE = 1_000_000;
// Relative to the lower of the two rates; Kaiser's design formulas.
const ATTENUATION = 100; // dB
const [PASS, STOP] = [0.45, 0.5]; // edges of the transition band
const CUTOFF = (PASS + STOP) / 2;
const BETA = 0.1102 * (ATTENUATION - 8.7);
const HALF_LENGTH = (ATTENUATION - 7.95) / (2.285 * 2 * Math.PI * (STOP - PASS)) / 2;
const FINENESS = 1024; // points of the filter per sample of the lower rate, with straight lines between
const KEPT_WEIGHTS = 10_000_000; // odd rates have more: they are then made again whenever needed

export class Resampler {
  // A recording, piece by piece. Throws AudioError for a rate that is not a whole number of Hz in range.
  constructor(rate) {
    if (!(Number.isInteger(rate) && MIN_RATE <= rate && rate <= MAX_RATE)) {
      throw new AudioError(`sampling rate ${rate} Hz; supported: ${MIN_RATE} to ${MAX_RATE} Hz, whole numbers`);
    }
    const divisor = gcd(rate, SAMPLE_RATE);
    this.up = SAMPLE_RATE / divisor;
    this.down = rate / divisor;
    this.toLower = Math.min(1, this.up / this.down); // samples of the lower rate per input sample
    this.reach = Math.ceil(HALF_LENGTH / this.toLower); // input samples on each side of an output
    this.taps = 2 * this.reach + 2;
    this.held = new Float32Array(this.reach); // the input from `start` on; before the recording there are zeros
    this.start = -this.reach;
    this.nIn = this.nOut = 0;
    this.kept = this.up * this.taps <= KEPT_WEIGHTS ? new Array(this.up) : null;
  }

  // The next samples, Float32Array -> the outputs that they complete.
  push(samples) {
    if (this.up === this.down) return samples;
    this.nIn += samples.length;
    this.held = joined(this.held, samples);
    // the last output whose window of inputs is there
    const lastInput = this.start + this.held.length - this.reach - 2;
    return this.next(Math.max(0, Math.floor((lastInput * this.up) / this.down) + 1 - this.nOut));
  }

  // The last outputs; n inputs give ceil(n * 16000 / rate) in all.
  finish() {
    if (this.up === this.down) return new Float32Array(0);
    this.held = joined(this.held, new Float32Array(this.taps));
    return this.next(Math.ceil((this.nIn * this.up) / this.down) - this.nOut);
  }

  next(count) {
    const outputs = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const position = (this.nOut + i) * this.down;
      const first = Math.floor(position / this.up) - this.reach - this.start;
      const weights = this.weights(position % this.up);
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * this.held[first + k];
      outputs[i] = sum;
    }
    this.nOut += count;
    const needed = Math.floor((this.nOut * this.down) / this.up) - this.reach; // of the next output
    if (needed > this.start) {
      this.held = this.held.slice(needed - this.start);
      this.start = needed;
    }
    return outputs;
  }

  // Of an output that lies `phase` / up after an input sample: for the inputs from `reach` before that one on.
  weights(phase) {
    const kept = this.kept?.[phase];
    if (kept) return kept;
    const exact = new Float64Array(this.taps);
    let sum = 0;
    for (let k = 0; k < this.taps; k++) {
      // in units of 1 / up input samples distances are whole numbers
      const place = Math.abs(phase - (k - this.reach) * this.up) * ((this.toLower / this.up) * FINENESS);
      const index = Math.min(Math.floor(place), FILTER.length - 2);
      exact[k] = FILTER[index] + (place - index) * (FILTER[index + 1] - FILTER[index]);
      if (index === FILTER.length - 2) exact[k] = 0;
      sum += exact[k];
    }
    const weights = Float32Array.from(exact, (weight) => weight / sum); // gain 1 at 0 Hz
    if (this.kept) this.kept[phase] = weights;
    return weights;
  }
}

// Half of the symmetric filter, at every 1 / FINENESS sample of the lower rate.
const FILTER = Float64Array.from({length: Math.ceil(HALF_LENGTH * FINENESS) + 2}, (_, i) => {
  const distance = i / FINENESS;
  const inside = 1 - (distance / HALF_LENGTH) ** 2;
  return inside > 0 ? sinc(2 * CUTOFF * distance) * bessel(BETA * Math.sqrt(inside)) : 0;
});

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

// The modified Bessel function of the first kind, order 0, by its power series: for x up to 10, 40 terms are exact.
function bessel(x) {
  let [sum, term] = [1, 1];
  for (let k = 1; k < 40; k++) sum += term *= (x / 2 / k) ** 2;
  return sum;
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}

export function joined(...parts) {
  const whole = new Float32Array(parts.reduce((total, part) => total + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
