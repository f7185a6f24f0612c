// What transformers.js makes of a folder of contract C, offline.
//
//     node transcribe.mjs NODE_MODULES FOLDER DTYPE LANGUAGE=FILE...
//
// NODE_MODULES: where npm put @huggingface/transformers. FILE: float32 samples at 16 kHz, nothing else.
// Writes a line of JSON for each: {"ids": without prompt and end, "text": ...}.
import fs from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [modules, folder, dtype, ...recordings] = process.argv.slice(2);
const library = path.join(modules, "@huggingface/transformers/dist/transformers.node.mjs");
const { env, AutoProcessor, CohereAsrForConditionalGeneration } = await import(pathToFileURL(library));
env.allowRemoteModels = false;
env.localModelPath = path.dirname(folder);

const name = path.basename(folder);
const processor = await AutoProcessor.from_pretrained(name);
const model = await CohereAsrForConditionalGeneration.from_pretrained(name, {
    dtype,
    session_options: { intraOpNumThreads: 2 },
});
for (const recording of recordings) {
    const [language, file] = recording.split("=");
    const bytes = fs.readFileSync(file);
    const samples = new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
    const prompt = processor.get_decoder_prompt_ids(language);
    const inputs = await processor(samples);
    const output = await model.generate({ ...inputs, decoder_input_ids: prompt, max_new_tokens: 60 });
    const ids = output[0].tolist().map(Number).slice(prompt.length).filter((id) => id !== model.config.eos_token_id);
    const text = processor.tokenizer.decode(ids, { skip_special_tokens: true }).trim();
    console.log(JSON.stringify({ ids, text }));
}
