// What OpenAI's own client for Node does with a server: node openai.mjs URL WAV PCM24 CASE -> a line of JSON
import { createReadStream, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [url, wav, pcm, name] = process.argv.slice(2);
const require = createRequire(`${process.env.COHERE_LITE_NODE_MODULES}/`);
const { default: OpenAI, toFile } = require("openai");
const client = new OpenAI({ apiKey: "key", baseURL: `${url}/v1`, maxRetries: 2 });
const create = (fields) => client.audio.transcriptions.create({ file: createReadStream(wav), model: "whisper-1", ...fields });

const cases = {
  stream_of_a_file: async () => create({}),
  buffer: async () => create({ file: await toFile(readFileSync(wav)) }),
  text: async () => create({ response_format: "text" }),
  srt: async () => create({ response_format: "srt" }),
  verbose: async () => create({ response_format: "verbose_json", timestamp_granularities: ["segment", "word"] }),
  logprobs: async () => create({ include: ["logprobs"], chunking_strategy: { type: "server_vad", threshold: 0.5 } }),
  events: async () => {
    const events = [];
    for await (const event of await create({ stream: true })) events.push(event);
    return events;
  },
  empty: async () => create({ file: await toFile(Buffer.alloc(0), "a.wav") }).catch((e) => ({ status: e.status, param: e.param })),
  large: async () => create({ file: await toFile(Buffer.alloc(20e6), "a.wav") }).catch((e) => ({ status: e.status, message: e.message })),
  large_stream: async () => create({ file: createReadStream("/dev/zero", { end: 20e6 }) }).catch((e) => ({ status: e.status, message: e.message })),
  models: async () => (await client.models.list()).data.map((model) => model.id),
  model: async () => client.models.retrieve("a/b").catch((e) => ({ status: e.status, code: e.code })),
  realtime: async () => {
    const { OpenAIRealtimeWS } = require("openai/realtime/ws");
    return live(new OpenAIRealtimeWS({ model: "gpt-realtime-whisper" }, client));
  },
  browser: async () => {
    globalThis.WebSocket = require("ws").WebSocket; // as browsers have it
    const { OpenAIRealtimeWebSocket } = require("openai/realtime/websocket");
    return live(new OpenAIRealtimeWebSocket({ model: "gpt-realtime-whisper" }, client));
  },
};

// A session without turn detection: all is sent, then committed.
function live(session) {
  return new Promise((resolve, reject) => {
    const events = [];
    session.on("error", reject);
    session.on("event", (event) => events.push(event.type));
    session.on("session.created", () => {
      const input = { format: { type: "audio/pcm", rate: 24000 }, turn_detection: null, transcription: { model: "x", language: "en" } };
      session.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
      const sound = readFileSync(pcm);
      for (let i = 0; i < sound.length; i += 4800) {
        session.send({ type: "input_audio_buffer.append", audio: sound.subarray(i, i + 4800).toString("base64") });
      }
      session.send({ type: "input_audio_buffer.commit" });
    });
    session.on("conversation.item.input_audio_transcription.completed", (event) => {
      session.close();
      resolve({ events, transcript: event.transcript, usage: event.usage, protocol: session.socket.protocol });
    });
  });
}

console.log(JSON.stringify(await cases[name]()));
process.exit(0);
