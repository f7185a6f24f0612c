// Segments -> SRT and WebVTT: cues that can be read, and never overlap. cohere_lite/extras/subtitles.py says why.

import {SPACES, strip} from './transcript.js';
import {WIDE} from './wide.js';

const LINE_COLUMNS = 42; // of Latin letters; Chinese, Japanese and Korean characters take two
const READABLE_MS = 833;

const escaped = (characters) => characters.replace(/[\\\]^-]/g, '\\$&');
const UNSPACED_SCRIPTS = '\\u2e80-\\ua4cf\\uf900-\\ufaff\\ufe30-\\ufe4f\\uff00-\\uffef\\u{20000}-\\u{3ffff}';
const NOT_LAST = escaped('([{“‘«「『（［｛〈《【〔');
const NOT_FIRST = escaped(
  ',.:;!?)]}%”’»…、。，．・：；！？」』）］｝〉》】〕ー々ゝゞヽヾぁぃぅぇぉっゃゅょゎァィゥェォッャュョヮヵヶ',
);
// Text that must stay in one line, with the space before it.
const UNBROKEN = new RegExp(
  ` ?(?:« |[${NOT_LAST}])*(?:[ァ-ヺー]+|[${UNSPACED_SCRIPTS}]|[^ ${UNSPACED_SCRIPTS}]+)[${NOT_FIRST}]*` +
    `(?: [!?:;%»][${NOT_FIRST}]*(?= |$))?`,
  'gu',
);
const SENTENCE_ENDS = '.!?…。！？؟';
const CLAUSE_ENDS = ',;:、，；：،؛';
const CLOSING_QUOTES = /["'”’»」』)）]+$/u;

// style: srt or vtt -> the text of the file.
export function subtitles(segments, style) {
  const cues = timeline(segments).map((cue, i) => {
    const times = `${timestamp(cue.start)} --> ${timestamp(cue.end)}`;
    const text = cue.texts.join('\n');
    if (style === 'srt') return `${i + 1}\n${times.replaceAll('.', ',')}\n${text}\n\n`;
    return `${times}\n${text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;')}\n\n`;
  });
  return (style === 'vtt' ? 'WEBVTT\n\n' : '') + cues.join('');
}

// Cues in order; none ends after the next one starts, and one that would be too short to read joins the next one.
function timeline(segments) {
  const waiting = segments.flatMap(cuesOf);
  const cues = [];
  while (waiting.length > 0) {
    const [cue, following] = waiting;
    if (following && following.start < Math.min(cue.end, cue.start + READABLE_MS)) {
      const both = {start: cue.start, end: Math.max(cue.end, following.end), texts: [...cue.texts, ...following.texts]};
      waiting.splice(0, 2, both);
    } else {
      cues.push({...cue, end: following ? Math.min(cue.end, following.start) : cue.end});
      waiting.shift();
    }
  }
  return cues;
}

// Consecutive cues, which share the segment's time in proportion to their characters.
function cuesOf(segment) {
  const texts = laidOut(oneLine(segment.text).replaceAll('-->', '- ->'), LINE_COLUMNS);
  const [start, end] = [milliseconds(segment.start), milliseconds(segment.end)];
  const lengths = texts.map((text) => [...text].length);
  const total = Math.max(sum(lengths), 1);
  const edge = (i) => start + Math.floor(((end - start) * sum(lengths.slice(0, i))) / total);
  return texts.map((text, i) => ({start: edge(i), end: Math.max(edge(i + 1), edge(i) + 1), texts: [text]}));
}

// A text with single spaces between words -> texts of one or two lines each: few, of similar length, and ending where
// sentences do if possible.
function laidOut(text, columns) {
  const pieces = [...text.matchAll(UNBROKEN)].flatMap(([piece]) => {
    // a word that is too long for a line may be cut after any character
    return textColumns(piece.trimStart()) <= columns ? [piece] : piece.match(/ ?[^ ]/gu);
  });
  const n = pieces.length;
  const at = [0];
  for (const piece of pieces) at.push(at.at(-1) + textColumns(piece));
  const space = pieces.map((piece) => (piece.startsWith(' ') ? 1 : 0));
  // the end of the longest line from piece i on
  const lineEnd = pieces.map((_, i) => at.findLastIndex((place) => place <= at[i] + space[i] + columns));
  lineEnd.push(n);

  // best[i]: the least cost of the first i pieces as cues, and where the last cue begins. A cue costs the square of its
  // empty columns; if it ends inside a sentence, an empty line's square on top; after a comma, half of that.
  const best = [[0, 0], ...pieces.map(() => [Infinity, 0])];
  for (let start = 0; start < n; start++) {
    for (let end = start + 1; end <= lineEnd[lineEnd[start]]; end++) {
      const mark = [...pieces[end - 1].replace(CLOSING_QUOTES, '')].at(-1) ?? '';
      const inside = SENTENCE_ENDS.includes(mark) ? 0 : CLAUSE_ENDS.includes(mark) ? 0.5 : 1;
      const empty = 2 * columns - (at[end] - at[start] - space[start]);
      const cost = best[start][0] + empty ** 2 + inside * columns ** 2;
      if (cost < best[end][0]) best[end] = [cost, start]; // of equal costs, the first start
    }
  }
  const cuts = [n];
  while (cuts.at(-1) > 0) cuts.push(best[cuts.at(-1)][1]);
  cuts.reverse();

  return cuts.slice(1).map((end, i) => {
    const start = cuts[i];
    let middle = end;
    if (lineEnd[start] < end) {
      const uneven = (place) => Math.abs(2 * at[place] - at[start] - at[end]);
      const middles = [];
      for (let place = start + 1; place <= lineEnd[start]; place++) if (lineEnd[place] >= end) middles.push(place);
      middle = middles.reduce((least, place) => (uneven(place) < uneven(least) ? place : least));
    }
    const lines = [pieces.slice(start, middle), pieces.slice(middle, end)].map((line) => strip(line.join('')));
    return lines.filter((line) => line).join('\n');
  });
}

function textColumns(text) {
  let columns = 0;
  for (const character of text) columns += WIDE.test(character) ? 2 : 1;
  return columns;
}

// White space, line breaks and control characters as single spaces between words.
export function oneLine(text) {
  return strip(text.replace(/[\x00-\x1f\x7f-\x9f]/g, ' '))
    .split(SPACES)
    .filter((word) => word)
    .join(' ');
}

// Rounded as in Python: half to even.
function milliseconds(seconds) {
  const exact = seconds * 1000;
  const low = Math.floor(exact);
  if (exact - low === 0.5) return low % 2 ? low + 1 : low;
  return Math.round(exact);
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}

// HH:MM:SS.mmm.
function timestamp(ms) {
  const parts = [Math.floor(ms / 3600000), Math.floor(ms / 60000) % 60, Math.floor(ms / 1000) % 60];
  return `${parts.map((part) => String(part).padStart(2, '0')).join(':')}.${String(ms % 1000).padStart(3, '0')}`;
}
