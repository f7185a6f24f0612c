// Texts of pieces -> one text: cohere_lite/transcript.py. Python's idea of white space is not JavaScript's.

const SPACE = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]'; // str.isspace
const [LEADING, TRAILING] = [new RegExp(`^${SPACE}+`), new RegExp(`${SPACE}+$`)];
export const SPACES = new RegExp(`${SPACE}+`);
const LINE_END = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/; // str.splitlines
const UNSPACED = ['ja', 'zh']; // written without spaces between words

export const stripEnd = (text) => text.replace(TRAILING, '');
export const strip = (text) => stripEnd(text.replace(LEADING, ''));

// A text of several lines as one.
export function inOneLine(text) {
  const lines = text.split(LINE_END);
  if (lines.at(-1) === '') lines.pop();
  return lines.join(' ');
}

// The texts of consecutive pieces as one: stripped, blank ones left out; leading white space of the whole stays.
export function join(texts, language) {
  const spoken = texts.filter((text) => strip(text));
  if (spoken.length === 0) return '';
  return [stripEnd(spoken[0]), ...spoken.slice(1).map(strip)].join(UNSPACED.includes(language) ? '' : ' ');
}

// 0:07, 12:34, 3:00:00.
export function clock(seconds) {
  const whole = Math.round(seconds);
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, '0');
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}
