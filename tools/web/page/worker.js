// What works while the page stays responsive: the model, and the recordings that it is asked to recognise, in turn.
//
// Messages in, each with `type`:
//   open     {model, url, pair, device, threads, isCautious}   -> opened, or failed
//   file     {id, file, language}                  -> started, segment ..., done; or failed; undecoded before that, with
//                                                     what the page's decoder may know
//   decoded  {rate, channels, duration, warnings}, or {error}
//   live     {id, rate, language}, block {id, samples} ..., stop {id}
//   cancel   {id}
//   forget   {}                                    -> forgotten

import {NotWav, PageError} from './errors.js';
import {ModelFiles, deleteModels} from './files.js';
import {N_MELS} from './mel.js';
import {openModel} from './model.js';
import {Recording} from './recording.js';
import {Vocabulary} from './tokens.js';
import {openWav} from './wav.js';

const BLOCK = 1 << 18; // frames worked on at once, of what the page decoded
const FRAMES_PER_COLUMN = 10; // of the spectrogram: a column for 0.1 s
const BINS_PER_ROW = 2;
const FEWER_BYTES = 1 << 30;
const PAGE_BYTES = 1 << 16; // of WebAssembly
const UNREAD = ['NotFoundError', 'NotReadableError'];
const MOVED = 'It cannot be read: it is a folder, or has been moved, changed or deleted since it was chosen.';
const THREADS_MS = 60_000; // in which threads must have started; in Firefox, on busy cores, some never do

let opened = null; // {model, vocabulary}
let turn = Promise.resolve(); // files wait for each other
let decoded = null; // takes what the page has decoded
const live = new Map(); // id -> Blocks
const cancelled = new Set();

self.onmessage = ({data}) => HANDLERS[data.type](data);

const HANDLERS = {
  open: (request) => answered(request, () => open(request)),
  file: (request) => inTurn(request, () => recogniseFile(request)),
  decoded: (answer) => {
    decoded(answer);
    decoded = null; // it would hold what it has given
  },
  live: (request) => {
    live.set(request.id, new Blocks());
    answered(request, () => recogniseLive(request)); // no file keeps a speaker waiting for longer than a piece
  },
  block: ({id, samples}) => live.get(id)?.push(samples),
  stop: ({id}) => live.get(id)?.end(),
  cancel: ({id}) => {
    cancelled.add(id);
    live.get(id)?.end();
  },
  forget: (request) =>
    answered(request, async () => self.postMessage({type: 'forgotten', bytes: await deleteModels()})),
};

function inTurn(request, work) {
  turn = turn.then(() => answered(request, work));
}

// Every request is answered: what went wrong is told in a sentence.
async function answered({type, id}, work) {
  try {
    await work();
  } catch (error) {
    const isOurs = error instanceof PageError;
    if (!isOurs) console.warn(error);
    const isUnread = type === 'file' && UNREAD.includes(error?.name);
    self.postMessage({type: 'failed', id, message: isUnread ? MOVED : sentence(error), isOurs});
  }
}

function sentence(error) {
  if (error instanceof PageError) return error.message;
  const said = String(error?.message ?? error);
  if (error instanceof RangeError || /memory|alloc|OOM/i.test(said)) {
    return `There is not enough memory for this model (${said}). Close other tabs, or choose a smaller model.`;
  }
  return `This browser cannot do it: ${said}`;
}

async function open({model, url, pair, device, threads, isCautious}) {
  const names = [pair.encoder, pair.decoder].flatMap(({graph, data}) => [graph, ...data]);
  const report = (progress) => self.postMessage({type: 'progress', ...progress});
  const notice = (message) => self.postMessage({type: 'notice', message});
  const files = await new ModelFiles(url, model, [...names, 'tokens.txt'], report, notice).open();
  const vocabulary = new Vocabulary(new TextDecoder().decode(await files.read('tokens.txt')));
  const onWebgpu = device === 'webgpu';
  if (isCautious && pair.bytes < FEWER_BYTES / 2) reserveLess();
  const ort = await runtime(onWebgpu, threads);
  opened = {vocabulary, model: await openModel(ort, pair, (name) => files.read(name), onWebgpu)};
  self.postMessage({type: 'opened', languages: vocabulary.languages, threads: ort.env.wasm.numThreads});
}

async function runtime(onWebgpu, threads) {
  const {WASM, WEBGPU} = await import('./runtime.js');
  const {module, glue, parts} = onWebgpu ? WEBGPU : WASM;
  const ort = await import(module);
  ort.env.wasm.wasmPaths = {mjs: new URL(glue, import.meta.url).href};
  ort.env.wasm.wasmBinary = await whole(parts);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
  if (ort.env.wasm.numThreads > 1) ort.env.wasm.initTimeout = THREADS_MS;
  ort.env.logLevel = 'error';
  return ort;
}

// onnxruntime-web asks for 4 GB of addresses at its start, which iOS refuses. A quarter is enough for small models.
function reserveLess() {
  const Native = WebAssembly.Memory;
  WebAssembly.Memory = class extends Native {
    constructor(size) {
      super({...size, maximum: Math.min(size.maximum, FEWER_BYTES / PAGE_BYTES)});
    }
  };
}

// A file that comes in parts, each below what hosts allow.
async function whole(parts) {
  const blobs = [];
  for (const part of parts) {
    const response = await fetch(new URL(part, import.meta.url));
    if (!response.ok) throw new PageError(`${part} is not there (the server answered ${response.status}).`);
    blobs.push(await response.blob());
  }
  return new Blob(blobs).arrayBuffer();
}

async function recogniseFile({id, file, language}) {
  if (file.size === 0) throw new PageError('The file is empty.');
  const sound = await openWav(file).catch((error) => {
    if (error instanceof NotWav) return decodedByPage(id, error.sound ?? file, error.message);
    throw error;
  });
  await recognise(id, sound.rate, language, false, sound.blocks, sound);
}

// The page's decoder holds a recording in memory as a whole: the next file waits.
async function decodedByPage(id, file, message) {
  self.postMessage({type: 'undecoded', id, file, message});
  const {error, channels, ...sound} = await new Promise((resolve) => (decoded = resolve));
  if (error) throw new PageError(error);
  async function* blocks() {
    for (let at = 0; at < channels[0].length; at += BLOCK) {
      yield channels.map((channel) => channel.subarray(at, at + BLOCK));
    }
  }
  return {...sound, blocks: blocks()};
}

async function recogniseLive({id, rate, language}) {
  try {
    await recognise(id, rate, language, true, live.get(id), {duration: null, warnings: []});
  } finally {
    live.delete(id);
  }
}

// warnings: those of the file, complete when its blocks have ended.
async function recognise(id, rate, language, isLive, blocks, {duration, warnings}) {
  if (!opened) throw new PageError('No model is loaded.');
  const recording = new Recording(opened.model, opened.vocabulary, rate, language, isLive);
  self.postMessage({type: 'started', id, duration});
  const began = performance.now();
  let end = 0;
  const tell = async (segments) => {
    for await (const {features, frames, ...segment} of segments) {
      if (cancelled.has(id)) return;
      end = segment.end;
      const seconds = (performance.now() - began) / 1000;
      self.postMessage({type: 'segment', id, segment, seconds, picture: features && picture(features, frames)});
    }
  };
  for await (const channels of blocks) {
    if (cancelled.has(id)) break;
    await tell(recording.push(channels));
  }
  if (!cancelled.has(id)) await tell(recording.finish());
  const isCancelled = cancelled.delete(id);
  const seconds = (performance.now() - began) / 1000;
  self.postMessage({type: 'done', id, isCancelled, end, seconds, warnings: [...warnings, ...recording.warnings]});
}

// Log-mel features (128, frames) -> a picture of 64 rows, the highest frequency first, of a byte each.
function picture(features, frames) {
  const columns = Math.ceil(frames / FRAMES_PER_COLUMN);
  const rows = N_MELS / BINS_PER_ROW;
  const pixels = new Uint8ClampedArray(rows * columns);
  for (let column = 0; column < columns; column++) {
    const [first, last] = [column * FRAMES_PER_COLUMN, Math.min(frames, (column + 1) * FRAMES_PER_COLUMN)];
    for (let row = 0; row < rows; row++) {
      let sum = 0;
      for (let bin = row * BINS_PER_ROW; bin < (row + 1) * BINS_PER_ROW; bin++) {
        for (let frame = first; frame < last; frame++) sum += features[bin * frames + frame];
      }
      // two standard deviations below a bin's mean are black, two above it white
      pixels[(rows - 1 - row) * columns + column] = (sum / (last - first) / BINS_PER_ROW + 2) * 64;
    }
  }
  return {columns, rows, pixels};
}

// Blocks of samples, as they come.
class Blocks {
  constructor() {
    this.waiting = [];
    this.isEnded = false;
    this.wake = () => {};
  }

  push(samples) {
    this.waiting.push(samples);
    this.wake();
  }

  end() {
    this.isEnded = true;
    this.wake();
  }

  async *[Symbol.asyncIterator]() {
    for (;;) {
      while (this.waiting.length > 0) yield [this.waiting.shift()];
      if (this.isEnded) return;
      await new Promise((resolve) => (this.wake = resolve));
    }
  }
}
