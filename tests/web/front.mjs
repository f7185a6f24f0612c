// Calls the page's modules in node, for tests/test_web_modules.py: a JSON list of calls on stdin, [name, ...arguments]
// each; a JSON list of results on stdout. Arrays of numbers are {"f4": base64} or {"f8": base64} both ways.

import {readFileSync} from 'node:fs';
import {buffer} from 'node:stream/consumers';

const PAGE = new URL('../../tools/web/page/', import.meta.url);
const page = (name) => import(new URL(`${name}.js`, PAGE));

const {Chunks, pairwiseSum, quietest} = await page('cut');
const {decode} = await page('decode');
const {Loudness, holdsSpeech} = await page('loudness');
const {logMel, normal} = await page('mel');
const {Mixer} = await page('mix');
const {Phrases} = await page('phrases');
const {Resampler} = await page('resample');
const {Vocabulary} = await page('tokens');
const {inOneLine, join} = await page('transcript');
const {openWav} = await page('wav');

const lengths = (pieces) => pieces.map((piece) => piece.length);

const CALLS = {
  logMel: (samples) => logMel(samples).features,
  normal,
  resample: (rate, ...blocks) => {
    const resampler = new Resampler(rate);
    return [...blocks.map((block) => resampler.push(block)), resampler.finish()];
  },
  pairwiseSum,
  quietest,
  chunks: (seconds, ...blocks) => {
    const chunks = new Chunks(seconds);
    return [...blocks.flatMap((block) => lengths(chunks.push(block))), ...lengths(chunks.finish())];
  },
  phrases: (...blocks) => {
    const phrases = new Phrases();
    return [...blocks.flatMap((block) => lengths(phrases.push(block))), ...lengths(phrases.finish())];
  },
  levels: (...blocks) => {
    const loudness = new Loudness();
    return Float64Array.from(
      blocks.flatMap((block) => loudness.push(block)).flatMap(({loudness, floor}) => [loudness, floor]),
    );
  },
  holdSpeech: (...pieces) => {
    const loudness = new Loudness();
    return pieces.map((piece) => holdsSpeech(loudness.push(piece)));
  },
  mix: (rate, ...blocks) => {
    const mixer = new Mixer(rate);
    return {mixed: blocks.map((block) => mixer.mix(block).samples), warnings: mixer.warnings};
  },
  wav: async (path) => {
    try {
      const wav = await openWav(new Blob([readFileSync(path)]));
      const blocks = [];
      for await (const block of wav.blocks) blocks.push(block);
      return {rate: wav.rate, duration: wav.duration, blocks, warnings: wav.warnings};
    } catch (error) {
      const sound = error.sound && [...new Uint8Array(await error.sound.arrayBuffer())];
      return {error: error.message, kind: error.constructor.name, sound};
    }
  },
  vocabulary: (text, ids, language) => {
    const vocabulary = new Vocabulary(text);
    return [ids.map((list) => vocabulary.decode(list)), vocabulary.prompt(language), vocabulary.languages];
  },
  // script: the token that each step answers with
  decode: async (script, seconds, maxPositions) => {
    const steps = script[Symbol.iterator]();
    const step = () => ({token: steps.next().value, logprob: -1});
    const model = {maxPositions, start: () => {}, release: () => {}, step};
    return decode(model, {seconds}, [7, 7], 2);
  },
  join,
  inOneLine,
  subtitles: async (folder, segments, style) => (await import(`${folder}/subtitles.js`)).subtitles(segments, style),
};

const TYPES = {f4: Float32Array, f8: Float64Array};

function decoded(key, value) {
  const type = value && TYPES[Object.keys(value)[0]];
  if (!type) return value;
  return new type(Uint8Array.from(Buffer.from(Object.values(value)[0], 'base64')).buffer);
}

function encoded(value) {
  if (!ArrayBuffer.isView(value)) return value;
  const bytes = Buffer.from(value.buffer, value.byteOffset, value.byteLength);
  return {[value instanceof Float64Array ? 'f8' : 'f4']: bytes.toString('base64')};
}

function walked(value) {
  if (ArrayBuffer.isView(value)) return encoded(value);
  if (Array.isArray(value)) return value.map(walked);
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, walked(part)]));
  }
  return value;
}

const results = [];
for (const [name, ...given] of JSON.parse((await buffer(process.stdin)).toString(), decoded)) {
  results.push(walked(await CALLS[name](...given)));
}
process.stdout.write(JSON.stringify(results));
