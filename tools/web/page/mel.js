// Log-mel features, the numbers of cohere_lite/mel.py: dither, pre-emphasis, windowed power spectrum, mel filterbank,
// log, normalisation per bin. What is float32 there is rounded to it here.

import {makeFft, twoPowers} from './fft.js';

export const SAMPLE_RATE = 16000; // Hz
export const HOP = 160; // samples from one frame to the next: 10 ms
export const N_MELS = 128;
const WINDOW_LENGTH = 400; // samples: 25 ms
const N_FFT = 512;
const N_BINS = N_FFT / 2 + 1;
const PREEMPHASIS = Math.fround(0.97);
const DITHER = Math.fround(1e-5); // standard deviation of the noise that is added
const LOG_GUARD = 2 ** -24; // added before the logarithm
const STD_GUARD = 1e-5; // added to the standard deviation

const f32 = Math.fround;
const WINDOW = Float32Array.from(
  {length: WINDOW_LENGTH},
  (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / (WINDOW_LENGTH - 1)), // symmetric
);
const fft = makeFft(N_FFT);

// Float32Array (n,) of finite samples at 16 kHz -> {features: Float32Array (128, frames), frames: floor(n / 160)}
export function logMel(samples) {
  const frames = Math.floor(samples.length / HOP);
  const features = melPower(emphasised(samples), frames);
  for (let i = 0; i < features.length; i++) features[i] = Math.log(f32(features[i] + LOG_GUARD));
  for (let bin = 0; bin < N_MELS; bin++) normalise(features.subarray(bin * frames, (bin + 1) * frames));
  return {features, frames};
}

// Dithered and pre-emphasised, with half a window of zeros before and after.
function emphasised(samples) {
  const noise = normal(samples.length);
  const padded = new Float32Array(samples.length + WINDOW_LENGTH);
  let before = 0;
  for (let i = 0; i < samples.length; i++) {
    const dithered = f32(samples[i] + f32(DITHER * noise[i]));
    padded[WINDOW_LENGTH / 2 + i] = dithered - f32(PREEMPHASIS * before);
    before = dithered;
  }
  return padded;
}

// Energy per mel bin and frame, (128, frames).
function melPower(padded, frames) {
  const power = new Float32Array(N_MELS * frames);
  const real = new Float64Array(N_FFT);
  const imaginary = new Float64Array(N_FFT);
  for (let frame = 0; frame < frames; frame += 2) {
    // Two frames in one transform, as its real and its imaginary part.
    real.fill(0);
    imaginary.fill(0);
    for (let i = 0; i < WINDOW_LENGTH; i++) {
      real[i] = f32(padded[frame * HOP + i] * WINDOW[i]);
      if (frame + 1 < frames) imaginary[i] = f32(padded[(frame + 1) * HOP + i] * WINDOW[i]);
    }
    fft(real, imaginary);
    const [first, second] = twoPowers(real, imaginary, 0, N_FFT / 2);
    addToBins(first, power, frame, frames);
    if (frame + 1 < frames) addToBins(second, power, frame + 1, frames);
  }
  return power;
}

function addToBins(spectrum, power, frame, frames) {
  FILTERBANK.forEach(({first, weights}, bin) => {
    let sum = 0;
    for (let k = 0; k < weights.length; k++) sum += weights[k] * spectrum[first + k];
    power[bin * frames + frame] = sum;
  });
}

// A bin's frames, in place: mean 0, standard deviation 1.
function normalise(row) {
  let sum = 0;
  for (const value of row) sum += value;
  const mean = f32(sum / row.length);
  let squares = 0;
  for (let i = 0; i < row.length; i++) {
    row[i] -= mean;
    squares += row[i] ** 2;
  }
  const std = Math.sqrt(squares / Math.max(row.length - 1, 1));
  for (let i = 0; i < row.length; i++) row[i] /= std + STD_GUARD;
}

// For each of 128 bins the FFT bins that it weighs: triangles even on Slaney's scale, each of area 1 over Hz.
const FILTERBANK = (() => {
  const knee = 15; // mels, at 1000 Hz: below it 200 / 3 Hz a mel, above it 27 mels for each factor of 6.4
  const hz = (mel) => (mel < knee ? (mel * 200) / 3 : 1000 * Math.exp(((mel - knee) * Math.log(6.4)) / 27));
  const top = knee + (Math.log(SAMPLE_RATE / 2 / 1000) * 27) / Math.log(6.4);
  const corners = Array.from({length: N_MELS + 2}, (_, i) => hz((top * i) / (N_MELS + 1)));
  return Array.from({length: N_MELS}, (_, bin) => {
    const [low, centre, high] = corners.slice(bin, bin + 3);
    const row = Array.from({length: N_BINS}, (_, k) => {
      const at = (k * SAMPLE_RATE) / N_FFT;
      const height = f32(Math.max(0, Math.min((at - low) / (centre - low), (high - at) / (high - centre))));
      return f32(height * (2 / (high - low)));
    });
    const first = Math.max(
      0,
      row.findIndex((weight) => weight > 0),
    );
    return {first, weights: Float32Array.from(row.slice(first, row.findLastIndex((weight) => weight > 0) + 1))};
  });
})();

// The values of torch.randn(n) from a generator seeded with n, n >= 16: each 16 uniform numbers make 16 normal ones,
// and what is left over is covered by drawing the last 16 values anew.
export function normal(n) {
  const draw = mersenneTwister(n);
  const values = new Float32Array(n);
  const uniform = new Float32Array(16);
  const fill = (start) => {
    for (let i = 0; i < 16; i++) uniform[i] = (draw() & 0xffffff) * 2 ** -24;
    for (let i = 0; i < 8; i++) {
      const radius = f32(Math.sqrt(f32(-2 * f32(Math.log(f32(1 - uniform[i]))))));
      const angle = f32(f32(2 * Math.PI) * uniform[i + 8]);
      values[start + i] = radius * f32(Math.cos(angle));
      values[start + i + 8] = radius * f32(Math.sin(angle));
    }
  };
  const left = n % 16;
  for (let start = 0; start < n - left; start += 16) fill(start);
  if (left > 0) {
    for (let i = 0; i < left; i++) draw(); // torch draws these too before it replaces them
    if (n >= 16) fill(n - 16);
  }
  return values;
}

// MT19937, seeded as torch and numpy.random.RandomState seed it: each call draws 32 bits.
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }
  let at = 624;
  return () => {
    if (at === 624) {
      for (let k = 0; k < 624; k++) {
        const mixed = (state[k] & 0x80000000) | (state[(k + 1) % 624] & 0x7fffffff);
        state[k] = state[(k + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let drawn = state[at++];
    drawn ^= drawn >>> 11;
    drawn ^= (drawn << 7) & 0x9d2c5680;
    drawn ^= (drawn << 15) & 0xefc60000;
    return (drawn ^ (drawn >>> 18)) >>> 0;
  };
}
