// Greedy decoding of one clip, with the guard against loops: cohere_lite/decode.py.

import {ModelError} from './errors.js';

const LOOP_TOKENS_PER_S = 10;
const LOOP_TOKENS = 24;
const LOOP_REPEATS = 4;
const LOOP_NGRAM = 20; // tokens; the longest that is looked for

// clip: {seconds, ...} of model.encode. -> {tokens, truncated, looped, logprob}; truncated: the model's limit came
// before the end of the text; looped: the decoder repeated itself, and that is left out; logprob: the average.
export async function decode(model, clip, prompt, endOfText) {
  const tokens = [];
  const logprobs = [];
  let fed = prompt;
  let [ended, looped] = [false, false];
  await model.start(clip);
  for (let count = prompt.length; count <= model.maxPositions && !ended && !looped; count++) {
    const {token, logprob} = await model.step(fed);
    if (!Number.isFinite(logprob)) throw new ModelError("the decoder's logits are not numbers: a damaged model");
    logprobs.push(logprob);
    ended = token === endOfText;
    if (ended) break;
    tokens.push(token);
    const repeated = tokens.length > LOOP_TOKENS_PER_S * clip.seconds ? repeatedTokens(tokens) : 0;
    if (repeated > 0) {
      tokens.splice(-repeated);
      logprobs.splice(-repeated);
      looped = true;
    }
    fed = [token];
  }
  model.release();
  const logprob = logprobs.reduce((sum, value) => sum + value, 0) / logprobs.length;
  return {tokens, truncated: !ended && !looped, looped, logprob};
}

// How many of the last tokens only repeat the n-gram before them; 0 unless it is a loop.
function repeatedTokens(tokens) {
  for (let n = 1; n <= LOOP_NGRAM; n++) {
    let repeated = 0;
    while (repeated + n < tokens.length && tokens.at(-repeated - 1) === tokens.at(-repeated - 1 - n)) repeated++;
    if (repeated + n >= Math.max(LOOP_REPEATS * n, LOOP_TOKENS)) return repeated;
  }
  return 0;
}
