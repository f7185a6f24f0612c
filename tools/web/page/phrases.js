// Speech as it is spoken -> phrases, cut where the speaker pauses: cohere_lite/extras/phrases.py.

import {Held, MAX_CHUNK_S, QUIET_WINDOW, SEARCH_S, quietest} from './cut.js';
import {FRAME, Loudness, THRESHOLD_DB, isSpeech} from './loudness.js';
import {SAMPLE_RATE} from './mel.js';

const MIN_PAUSE_S = 0.6;
const MAX_PHRASE_S = 30;

// A pause belongs half to the phrase before it and half to what comes after it. A silence of two such halves or more is
// a piece of its own, up to half a pause before the next phrase.
export class Phrases {
  constructor(maxChunkS = MAX_CHUNK_S) {
    const maxPhrase = Math.round(Math.min(MAX_PHRASE_S, maxChunkS) * SAMPLE_RATE);
    // in frames, like all that follows
    this.pause = Math.floor(Math.round(MIN_PAUSE_S * SAMPLE_RATE) / FRAME);
    this.max = Math.floor(maxPhrase / QUIET_WINDOW) * (QUIET_WINDOW / FRAME);
    const search = Math.min(SEARCH_S * SAMPLE_RATE, Math.floor((this.max * FRAME) / 2));
    this.search = Math.floor(search / QUIET_WINDOW) * QUIET_WINDOW; // in samples
    this.loudness = new Loudness();
    this.held = new Held(); // from the start of the piece
    this.frames = 0; // of the piece so far
    this.quiet = 0; // since the last speech; in a silence as many as the piece has, or more
  }

  // The next samples -> the pieces that they complete.
  push(samples) {
    this.held.push(samples);
    const pieces = [];
    for (const level of this.loudness.push(samples)) {
      const speech = isSpeech(level, THRESHOLD_DB);
      const spoken = this.quiet < this.frames;
      this.frames++;
      this.quiet = speech ? 0 : this.quiet + 1;
      const end = spoken ? this.spokenEnd() : this.silenceEnd(speech);
      if (end > 0) {
        pieces.push(this.held.take(end * FRAME));
        this.frames -= end;
      }
    }
    return pieces;
  }

  // The last piece, empty if there was no sample since the one before it.
  finish() {
    return [this.held.take(this.held.length)];
  }

  // The frame at which a phrase ends; 0 while it goes on.
  spokenEnd() {
    const half = Math.floor(this.pause / 2);
    if (this.quiet >= this.pause) return this.frames - half;
    if (this.frames < this.max) return 0;
    const end = this.max * FRAME;
    return Math.floor((end - this.search + quietest(this.held.peek(end - this.search, end))) / FRAME);
  }

  // The frame at which a silence ends; 0 while it goes on, or if what comes after it may have it.
  silenceEnd(speech) {
    const half = Math.floor(this.pause / 2);
    const end = this.frames - half;
    return end >= half && (speech || this.frames >= this.max) ? end : 0;
  }
}
