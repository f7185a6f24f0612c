// Channels -> one, as cohere_lite/audio.py and extras/polarity.py: their mean, or the loudest where they cancel out.

import {AudioError} from './errors.js';

const MAX_SAMPLE = 1e15; // full scale is 1; only damaged files hold more
const WINDOW_S = 0.1;
const LEAST_S = 0.04; // they must cancel out for so long
const BAND_HZ = 8000;
const MOST = 0.1; // the power of the channels' sum over the sum of their powers: 1 where they are unrelated
const HELD_S = 0.5;
export const CANCELLED = 'the channels cancel each other out: where they do, the loudest is used instead of their mean';

export class Mixer {
  constructor(rate) {
    this.rate = rate;
    this.polarity = null;
    this.frames = 0; // mixed so far
    this.warnings = [];
  }

  // A Float64Array or Float32Array for each channel -> {samples: Float32Array, error}; error: of the first number that
  // is none, or too large, before which the samples end.
  mix(channels) {
    const samples = Float32Array.from({length: channels[0].length}, (_, i) => {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      return sum / channels.length;
    });
    if (channels.length > 1) {
      this.polarity ??= new Polarity(this.rate, channels.length);
      if (this.polarity.replaceCancelled(channels, samples) && !this.warnings.length) this.warnings.push(CANCELLED);
    }
    const bad = samples.findIndex((sample) => !(Math.abs(sample) <= MAX_SAMPLE));
    if (bad < 0) {
      this.frames += samples.length;
      return {samples, error: null};
    }
    const second = ((this.frames + bad) / this.rate).toFixed(3);
    const error = new AudioError(`NaN, infinity or a number beyond 1e15 at ${second} s`);
    return {samples: samples.subarray(0, bad), error};
  }
}

class Polarity {
  constructor(rate, count) {
    this.rate = rate;
    this.window = Math.max(1, Math.round(rate * WINDOW_S));
    this.powers = new Float64Array(count); // of about the last window
    this.powerOfSum = 0;
    this.last = Array(count).fill(new Float64Array(0)); // frames that are compared with the next ones
    this.cancelledS = this.heldS = 0;
    this.loudest = 0;
  }

  // Puts the loudest channel in the place of the mean wherever they cancel each other out; whether that was anywhere.
  replaceCancelled(channels, mean) {
    let isFound = false;
    for (let start = 0; start < mean.length; start += this.window) {
      const part = channels.map((channel) => channel.subarray(start, start + this.window));
      const seconds = part[0].length / this.rate;
      this.lookAt(part);
      const isCancelled = this.powerOfSum < MOST * this.powers.reduce((sum, power) => sum + power, 0);
      this.cancelledS = isCancelled ? this.cancelledS + seconds : 0;
      if (this.cancelledS >= LEAST_S) {
        const most = Math.max(...this.powers);
        this.loudest = this.powers.findIndex((power) => power > most / 2);
        this.heldS = HELD_S;
        isFound = true;
      }
      if (this.heldS > 0) {
        mean.set(part[this.loudest], start);
        this.heldS -= seconds;
      }
    }
    return isFound;
  }

  lookAt(part) {
    const summed = Math.max(1, Math.round(this.rate / BAND_HZ));
    const kept = 1 - part[0].length / this.window; // of what was before
    const frames = part.map((channel, i) => Float64Array.from([...this.last[i], ...channel]));
    const count = Math.floor(frames[0].length / summed);
    const bands = frames.map((channel) => {
      const sums = new Float64Array(count);
      for (let i = 0; i < count * summed; i++) sums[Math.floor(i / summed)] += channel[i];
      return sums.subarray(2).map((sum, i) => sum - sums[i]);
    });
    this.last = frames.map((channel) => channel.subarray(Math.max(0, count - 2) * summed));
    let powerOfSum = 0;
    for (let i = 0; i < count - 2; i++) powerOfSum += bands.reduce((sum, band) => sum + band[i], 0) ** 2;
    this.powers = this.powers.map(
      (power, channel) => kept * power + bands[channel].reduce((sum, value) => sum + value * value, 0),
    );
    this.powerOfSum = kept * this.powerOfSum + powerOfSum;
  }
}
