// Samples as they come -> segments: mixed, resampled, cut, the silent pieces told apart, the others recognised.

import {Chunks} from './cut.js';
import {decode} from './decode.js';
import {AudioError} from './errors.js';
import {Loudness, holdsSpeech} from './loudness.js';
import {HOP, SAMPLE_RATE} from './mel.js';
import {Mixer} from './mix.js';
import {Phrases} from './phrases.js';
import {Resampler} from './resample.js';
import {inOneLine} from './transcript.js';

// A segment: {start, end, text, silent, truncated, looped, logprob, features, frames}; start, end: seconds;
// features: log-mel (128, frames), null where silent.
export class Recording {
  // rate: Hz;  live: cut where the speaker pauses, instead of by the reference's rule. Throws AudioError, ModelError.
  constructor(model, vocabulary, rate, language, live) {
    Object.assign(this, {model, vocabulary, prompt: vocabulary.prompt(language)});
    this.mixer = new Mixer(rate);
    this.resampler = new Resampler(rate);
    this.cutter = live ? new Phrases(model.maxChunkS) : new Chunks(model.maxChunkS);
    this.loudness = new Loudness();
    this.position = 0; // samples at 16 kHz in the pieces so far
    this.warnings = this.mixer.warnings;
  }

  // The next samples, an array for each channel -> the segments that they complete.
  async *push(channels) {
    const {samples, error} = this.mixer.mix(channels);
    yield* this.recognised(this.cutter.push(this.resampler.push(samples)));
    if (error) {
      if (this.mixer.frames > 0 || samples.length > 0) yield* this.finish();
      throw error;
    }
  }

  // The last segments. Throws AudioError for less than 10 ms.
  async *finish() {
    const pieces = [...this.cutter.push(this.resampler.finish()), ...this.cutter.finish()];
    const count = this.position + pieces.reduce((total, piece) => total + piece.length, 0);
    if (count < HOP) {
      const held = ((count / SAMPLE_RATE) * 1000).toFixed(1);
      throw new AudioError(`holds ${held} ms of sound; 10 ms is the least`);
    }
    yield* this.recognised(pieces);
  }

  async *recognised(pieces) {
    for (const samples of pieces) {
      const isSilent = !holdsSpeech(this.loudness.push(samples)) || samples.length < HOP;
      if (samples.length === 0) continue;
      const start = this.position / SAMPLE_RATE;
      this.position += samples.length;
      const end = this.position / SAMPLE_RATE;
      yield {start, end, ...(isSilent ? SILENT : await this.recognise(samples))};
    }
  }

  recognise(samples) {
    return this.model.inTurn(async () => {
      const clip = await this.model.encode(samples);
      const {tokens, ...said} = await decode(this.model, clip, this.prompt, this.vocabulary.endOfText);
      const text = inOneLine(this.vocabulary.decode(tokens));
      return {text, tokens, ...said, silent: false, features: clip.features, frames: clip.frames};
    });
  }
}

const SILENT = {text: '', tokens: [], silent: true, truncated: false, looped: false, logprob: null, features: null};
