// tokens.txt -> prompt ids for the decoder, and text from the ids that it answers with: cohere_lite/tokens.py.

import {ModelError} from './errors.js';

// The languages that the model was trained on; its vocabulary has tokens for others, too.
const TRAINED = ['ar', 'de', 'el', 'en', 'es', 'fr', 'it', 'ja', 'ko', 'nl', 'pl', 'pt', 'ru', 'tr', 'vi', 'zh'];
const SPACE = '\u2581';
const SPECIAL = /^(<\|.*\|>|<unk>|<pad>|<s>|<\/s>)$/;
const BYTE = /^<0x([0-9A-F]{2})>$/;

export class Vocabulary {
  // text: of tokens.txt, a piece, a space and its id on each line.
  constructor(text) {
    this.pieces = [];
    this.ids = new Map();
    const lines = text
      .replace(/^\ufeff/, '')
      .trimEnd()
      .split('\n');
    lines.forEach((line, number) => {
      const match = /^(.+) (\d{1,9})\r?$/s.exec(line);
      if (!match) throw new ModelError(`tokens.txt, line ${number + 1}: not a piece and its id`);
      this.pieces[Number(match[2])] = match[1];
      this.ids.set(match[1], Number(match[2]));
    });
    if (this.pieces.length !== lines.length) throw new ModelError('tokens.txt: ids must run from 0 without gaps');
    this.languages = TRAINED.filter((code) => this.ids.has(`<|${code}|>`));
    this.endOfText = this.id('<|endoftext|>');
  }

  id(piece) {
    const id = this.ids.get(piece);
    if (id === undefined) throw new ModelError(`tokens.txt has no ${piece}; is it from a Cohere Transcribe model?`);
    return id;
  }

  // The ids that tell the decoder what to write: the ten tokens of the reference.
  prompt(language) {
    if (!this.languages.includes(language)) throw new ModelError(`language ${language} is not among this model's`);
    const token = `<|${language}|>`;
    const pieces = [SPACE, '<|startofcontext|>', '<|startoftranscript|>', '<|emo:undefined|>', token, token];
    return [...pieces, '<|pnc|>', '<|noitn|>', '<|notimestamp|>', '<|nodiarize|>'].map((piece) => this.id(piece));
  }

  // The text of token ids, as SentencePiece decodes them.
  decode(ids) {
    let text = '';
    let bytes = [];
    for (const id of ids) {
      const piece = this.pieces[id];
      if (piece === undefined) throw new ModelError(`the decoder gave token ${id}, which tokens.txt does not have`);
      const byte = BYTE.exec(piece);
      if (byte) {
        bytes.push(parseInt(byte[1], 16));
        continue;
      }
      text += utf8(bytes);
      bytes = [];
      if (!SPECIAL.test(piece)) {
        text += (text || !piece.startsWith(SPACE) ? piece : piece.slice(1)).replaceAll(SPACE, ' ');
      }
    }
    return text + utf8(bytes);
  }
}

const strict = new TextDecoder('utf-8', {fatal: true, ignoreBOM: true});

// Each byte that is part of no character gives one U+FFFD; a TextDecoder would give one for several.
function utf8(bytes) {
  let text = '';
  for (let i = 0; i < bytes.length;) {
    const first = bytes[i];
    const length = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    try {
      text += strict.decode(Uint8Array.from(bytes.slice(i, i + length)));
      i += length;
    } catch {
      text += '\ufffd';
      i++;
    }
  }
  return text;
}
