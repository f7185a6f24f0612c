// One recording on the page: its spectrogram, its text as it comes, and what can be done with it.

import {clock, join} from './transcript.js';

const LIVE_COLUMNS = 600; // 60 s, of a recording whose end nobody knows
const MOST_COLUMNS = 4000; // of a canvas; longer recordings are drawn narrower
// From black over violet and orange to white, evenly brighter: seen without colours, too.
const COLOURS = Array.from({length: 256}, (_, value) => {
  const blue = value < 128 ? value : Math.max(255 - value, 3 * value - 510);
  return [1.7 * value - 40, 1.6 * value - 150, blue, 255];
});

export class View {
  // name: of the recording;  language: its code;  onCancel: when the user wants no more of it
  constructor(name, language, onCancel) {
    this.name = name;
    this.language = language;
    this.segments = [];
    this.text = '';
    this.duration = null;
    const article = document.getElementById('recording').content.cloneNode(true).firstElementChild;
    this.article = article;
    this.find = (selector) => article.querySelector(selector);
    this.find('h3').textContent = name;
    this.find('.text').lang = language;
    this.find('.text').setAttribute('aria-label', `Text of ${name}`);
    this.find('canvas').setAttribute('aria-label', `Spectrogram of ${name}`);
    this.find('progress').setAttribute('aria-label', `Progress of ${name}`);
    this.cancel = () => {
      this.find('.cancel').disabled = true; // what is being recognised comes to its end
      onCancel();
    };
    this.find('.cancel').onclick = this.cancel;
    this.find('.copy').hidden = !navigator.clipboard; // at an address of http://
    this.find('.copy').onclick = () => this.copy();
    for (const button of article.querySelectorAll('.download')) {
      button.onclick = () => this.download(button.dataset.style);
    }
    document.getElementById('nothing').hidden = true;
    document.getElementById('recordings').prepend(article);
    this.state('waiting');
  }

  state(name) {
    this.article.dataset.state = name;
  }

  get isOpen() {
    return ['waiting', 'working'].includes(this.article.dataset.state);
  }

  // duration: seconds; null for speech as it is spoken
  started(duration) {
    this.duration = duration;
    this.state('working');
    const columns = duration === null ? LIVE_COLUMNS : Math.ceil(duration * 10);
    this.find('canvas').width = Math.min(Math.max(1, columns), MOST_COLUMNS);
    if (duration === null) this.find('progress').hidden = true;
  }

  add(segment, picture, seconds) {
    this.segments.push(segment);
    this.draw(segment, picture);
    const text = join(
      this.segments.map((one) => one.text),
      this.language,
    );
    if (text.length > this.text.length) {
      const span = document.createElement('span');
      span.textContent = text.slice(this.text.length);
      this.find('.text').append(span);
      this.text = text;
    }
    const where = `${clock(segment.start)} to ${clock(segment.end)}`;
    if (segment.truncated) this.warn(`${where}: the model reached its limit of tokens; words are missing`);
    if (segment.looped) {
      this.warn(`${where}: the model repeated itself without end and was stopped; words may be missing`);
    }
    if (this.duration) this.find('progress').value = segment.end / this.duration;
    this.facts(segment.end, seconds);
  }

  // The part of the canvas that is the segment's; of live speech the last minute is shown.
  draw({start, end}, picture) {
    const canvas = this.find('canvas');
    const context = canvas.getContext('2d');
    let left = start * 10;
    let scale = 1;
    if (this.duration) scale = canvas.width / (this.duration * 10);
    else if (end * 10 > canvas.width) {
      const moved = Math.ceil(end * 10 - canvas.width) - (this.moved ?? 0);
      this.moved = (this.moved ?? 0) + moved;
      context.globalCompositeOperation = 'copy'; // of silence nothing is drawn, and nothing must stay under it
      context.drawImage(canvas, -moved, 0);
      context.globalCompositeOperation = 'source-over';
      left -= this.moved;
    }
    if (!picture) return;
    const {columns, rows, pixels} = picture;
    const image = new ImageData(columns, rows);
    pixels.forEach((value, i) => image.data.set(COLOURS[value], 4 * i));
    const own = new OffscreenCanvas(columns, rows);
    own.getContext('2d').putImageData(image, 0, 0);
    context.drawImage(own, left * scale, 0, Math.max(1, columns * scale), canvas.height);
  }

  facts(end, seconds) {
    const speed = seconds > 0 ? `: ${(end / seconds).toFixed(1)} times real time` : '';
    const work = this.duration === null ? '' : ` in ${seconds.toFixed(1)} s${speed}`;
    this.find('.facts').textContent = `${clock(end)} of sound${work}`;
  }

  warn(message) {
    const item = document.createElement('li');
    item.textContent = message;
    this.find('.advice').append(item);
  }

  done(warnings, isCancelled) {
    warnings.forEach((warning) => this.warn(warning));
    if (isCancelled) this.warn('Stopped: what comes after this was not recognised.');
    else if (!this.text) this.warn('No words were heard.');
    this.end('done');
  }

  failed(message) {
    this.warn(`${this.name}: ${message}`);
    this.end('failed');
  }

  end(state) {
    this.find('progress').hidden = true;
    this.find('.cancel').hidden = true;
    for (const button of this.article.querySelectorAll('.copy, .download'))
      button.disabled = this.segments.length === 0;
    this.state(state);
  }

  async copy() {
    await navigator.clipboard.writeText(this.text);
    this.find('.copy').textContent = 'Copied';
  }

  async download(style) {
    let text = `${this.text}\n`;
    if (style !== 'txt') text = (await import('./subtitles.js')).subtitles(this.segments, style);
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type: style === 'vtt' ? 'text/vtt' : 'text/plain'}));
    link.download = `${this.name.replace(/\.[^.]*$/, '')}.${style}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }
}
