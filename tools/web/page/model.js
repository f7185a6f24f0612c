// The two graphs on onnxruntime-web, and the decoder's caches. In WASM, which copies what it is fed at every run, they
// are as short as the text allows; on WebGPU they stay in the GPU's buffers, each bound as past and as present.

import {N_MELS, SAMPLE_RATE, logMel} from './mel.js';

const FIRST_POSITIONS = 32; // of a cache whose length the graph leaves open; doubled whenever it is full

// ort: the module;  pair: the two graphs as models.json describes them;  read: a file's name -> its bytes
export async function openModel(ort, pair, read, onWebgpu) {
  const providers = [onWebgpu ? 'webgpu' : 'wasm'];
  const encoder = await openGraph(ort, pair.encoder, read, {
    executionProviders: providers,
    preferredOutputLocation: onWebgpu ? 'gpu-buffer' : 'cpu',
  });
  const decoder = await openGraph(ort, pair.decoder, read, {
    executionProviders: providers,
    ...(onWebgpu && {preferredOutputLocation: {next_token: 'cpu', next_logprob: 'cpu'}}),
  });
  const device = onWebgpu ? await ort.env.webgpu.device : null;
  return device ? new GpuModel(ort, pair, encoder, decoder, device) : new WasmModel(ort, pair, encoder, decoder);
}

async function openGraph(ort, {graph, data}, read, options) {
  const bytes = await read(graph);
  const externalData = [];
  // One after the other: all at once would need twice the memory.
  for (const path of data) externalData.push({path, data: await read(path)});
  return ort.InferenceSession.create(bytes, {...options, externalData, enableMemPattern: false, logSeverityLevel: 3});
}

class Model {
  constructor(ort, pair, encoder, decoder) {
    Object.assign(this, {ort, pair, encoder, decoder});
    this.maxPositions = pair.max_positions;
    this.maxChunkS = pair.max_audio_s;
    this.turn = Promise.resolve();
  }

  // One recording's piece after another's: there is one set of caches.
  inTurn(work) {
    const worked = this.turn.then(work);
    this.turn = worked.catch(() => {});
    return worked;
  }

  // Samples at 16 kHz, 160 or more -> a clip for `start`.
  async encode(samples) {
    const {features, frames} = logMel(samples);
    const mel = new this.ort.Tensor('float32', features, [1, N_MELS, frames]);
    const values = await this.encoder.run({mel});
    return {seconds: samples.length / SAMPLE_RATE, values, features, frames};
  }

  // Begin with a new clip.
  start(clip) {
    this.offset = 0;
    const length = clip.values.cross_value_0.dims[2];
    this.feeds = {...clip.values, encoder_length: this.int64([length], [1])};
    this.clip = clip;
  }

  feed(tokens) {
    this.feeds.tokens = this.int64(tokens, [1, tokens.length]);
    this.feeds.offset = this.int64([this.offset], []);
    this.offset += tokens.length;
  }

  release() {
    for (const value of Object.values(this.clip?.values ?? {})) value.dispose?.();
    this.clip = null;
    this.feeds = {};
  }

  int64(numbers, dims) {
    return new this.ort.Tensor('int64', BigInt64Array.from(numbers, BigInt), dims);
  }

  // Names of the caches as inputs.
  get pasts() {
    return this.decoder.inputNames.filter((name) => name.startsWith('past_'));
  }
}

class WasmModel extends Model {
  start(clip) {
    super.start(clip);
    this.positions = 0;
    this.grow(this.pair.positions ?? FIRST_POSITIONS);
  }

  // Feed tokens after those fed before -> {token, logprob}: the likeliest next one.
  async step(tokens) {
    while (this.offset + tokens.length > this.positions) this.grow(Math.min(2 * this.positions, this.maxPositions));
    this.feed(tokens);
    const outputs = await this.decoder.run(this.feeds);
    for (const name of this.pasts) this.feeds[name] = outputs[name.replace('past', 'present')];
    return likeliest(outputs.logits.data);
  }

  // Caches of so many positions, with what the shorter ones hold.
  grow(positions) {
    const {heads, head_dim: size} = this.pair;
    for (const name of this.pasts) {
      const data = new Float32Array(heads * positions * size);
      for (let head = 0; head < heads && this.positions > 0; head++) {
        const row = this.positions * size;
        data.set(this.feeds[name].data.subarray(head * row, (head + 1) * row), head * positions * size);
      }
      this.feeds[name] = new this.ort.Tensor('float32', data, [1, heads, positions, size]);
    }
    this.positions = positions;
  }
}

function likeliest(logits) {
  let token = 0;
  for (let i = 1; i < logits.length; i++) if (logits[i] > logits[token]) token = i;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - logits[token]);
  return {token, logprob: -Math.log(sum)};
}

class GpuModel extends Model {
  constructor(ort, pair, encoder, decoder, device) {
    super(ort, pair, encoder, decoder);
    const dims = [1, pair.heads, pair.positions ?? pair.max_positions, pair.head_dim];
    const bytes = dims.reduce((size, dim) => size * dim, pair.float_type === 'float16' ? 2 : 4);
    const usage = GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST;
    // GroupQueryAttention reads no row that this clip has not written: a buffer is never cleared.
    this.caches = this.pasts.map((name) => {
      const buffer = device.createBuffer({size: bytes, usage});
      return [name, ort.Tensor.fromGpuBuffer(buffer, {dataType: pair.float_type, dims})];
    });
  }

  start(clip) {
    super.start(clip);
    Object.assign(this.feeds, Object.fromEntries(this.caches));
    this.fetches = {next_token: null, next_logprob: null};
    for (const [name, tensor] of this.caches) this.fetches[name.replace('past', 'present')] = tensor;
  }

  // As WasmModel's: the graph chooses, and two numbers leave the GPU.
  async step(tokens) {
    this.feed(tokens);
    const {next_token: token, next_logprob: logprob} = await this.decoder.run(this.feeds, this.fetches);
    return {token: Number(token.data[0]), logprob: logprob.data[0]};
  }
}
