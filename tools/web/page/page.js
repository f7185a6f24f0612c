// The page: a model is chosen and loaded, then files and the microphone are recognised by it.

import {Engine, MAX_THREADS} from './engine.js';
import {PageError} from './errors.js';
import {megabytes} from './files.js';
import {level, openMicrophone} from './microphone.js';
import {decodeByBrowser} from './sound.js';
import {View} from './view.js';

const SMALL_BYTES = 50e6; // a model that is loaded without a question
const IOS_BYTES = 500e6; // above it, a telephone's tab may end without a word: it may have about 1.5 GB
// Of what the browser decodes in memory: by measurement 3 GB for an hour of stereo at 48 kHz.
const [DECODED_S, IOS_DECODED_S] = [3600, 900];
const DEVICES = {wasm: 'WebAssembly', webgpu: 'WebGPU'};

const $ = (id) => document.getElementById(id);
const views = new Map(); // id -> View
let models = [];
let adapter = null; // of WebGPU
let microphone = null;
let isToggling = false; // it is being opened or closed
let focused = null; // what had the keyboard's focus when it was disabled
let nextId = 1;
let isReady = false; // a model is loaded
let isKept = true; // on this device, for the next visit

const engine = new Engine({
  progress: ({loaded, total}) => {
    $('loading').value = loaded / total;
    // not in the status, which screen readers would read out at every megabyte
    $('loaded').textContent = `${megabytes(loaded)} of ${megabytes(total)}`;
  },
  notice: ({message}) => {
    isKept = false; // the worker has nothing else to remark
    notice(message, 'model');
  },
  started: ({id, duration}) => views.get(id).started(duration),
  segment: ({id, segment, picture, seconds}) => views.get(id).add(segment, picture, seconds),
  undecoded: async ({id, file, message}) => {
    const maxS = isIos() ? IOS_DECODED_S : DECODED_S;
    const decoded = await decodeByBrowser(file, maxS).catch((error) => {
      return {channels: [], error: error instanceof PageError ? `${message}; ${error.message}.` : `${message}.`};
    });
    const buffers = decoded.channels.map((channel) => channel.buffer);
    if (views.get(id).isOpen) engine.send({type: 'decoded', ...decoded}, buffers);
  },
  done: ({id, isCancelled, warnings}) => views.get(id).done(warnings, isCancelled),
  failed: async ({id, message}) => {
    views.get(id).failed(message);
    if (microphone?.id === id) await stopMicrophone();
  },
  ended: async (message) => {
    isReady = false;
    allow();
    closeAll(message);
    if (microphone) await stopMicrophone();
    say(message);
  },
});

await start();

async function start() {
  if (await reloadedForThreads()) return;
  $('load').onclick = load;
  $('forget').onclick = forget;
  $('model').onchange = chosen;
  $('device').onchange = advise;
  $('record').onclick = toggleMicrophone;
  $('files').onchange = () => recogniseFiles($('files').files);
  for (const type of ['dragover', 'dragleave', 'drop']) document.addEventListener(type, dragged);
  adapter = await navigator.gpu?.requestAdapter().catch(() => null);
  try {
    const response = await fetch('models.json');
    if (!response.ok) throw new Error(`the server answered ${response.status}`);
    models = await response.json();
  } catch (error) {
    return say(`The list of models cannot be read (${error.message}): is the page complete?`);
  }
  $('model').replaceChildren(...models.map(({folder}) => new Option(folder, folder)));
  const last = remembered('model');
  const brokenOff = remembered('loading');
  const isTold = brokenOff && models.some(({folder}) => folder === brokenOff);
  const wanted = isTold
    ? smallest()
    : (models.find(({folder}) => folder === last) ?? (isIos() ? smallest() : models[0]));
  $('model').value = wanted.folder;
  chosen();
  remember('loading', null);
  if (isTold) {
    notice(`The page ended while it loaded ${brokenOff}: this device may not have the memory. A smaller one may do.`);
  }
  if (!$('load').disabled && (wanted.folder === last || bytes(wanted) <= SMALL_BYTES)) await load();
  else say('Choose a model, and load it.');
}

// Threads need two headers, which the service worker adds where the server does not: from the second load on.
async function reloadedForThreads() {
  try {
    await installServiceWorker();
  } catch (error) {
    const closed = window.isSecureContext
      ? 'the browser has closed this to the page'
      : 'the address begins with http://';
    const why = error instanceof PageError ? error.message : closed;
    notice(`The page works only as long as its server is there: ${why}.`);
    console.info(error);
  }
  const isFirst = !remembered('reloaded');
  if (!window.crossOriginIsolated && navigator.serviceWorker?.controller !== undefined && isFirst) {
    remember('reloaded', 'yes');
    if (await navigator.serviceWorker.getRegistration()) {
      // Browsers keep this page, as it is now, for their Back button.
      addEventListener('pageshow', ({persisted}) => persisted && location.reload());
      location.reload();
      return true;
    }
  }
  remember('reloaded', null);
  if (!window.crossOriginIsolated) {
    const why = window.isSecureContext
      ? 'the browser or its settings allow no more'
      : 'the address begins with http://';
    notice(`One thread does the work, which takes longer: ${why}.`);
  }
  return false;
}

// Throws PageError where it cannot keep all files; `ready` alone would wait for ever.
async function installServiceWorker() {
  const {installing} = await navigator.serviceWorker.register('service-worker.js');
  const failed = new Promise((_, reject) => {
    installing?.addEventListener('statechange', () => {
      if (installing.state === 'redundant') reject(new PageError('a file of it is missing, or the disk is full'));
    });
  });
  await Promise.race([navigator.serviceWorker.ready, failed]);
}

// The pair of graphs that runs on a device, if one does here.
function pairFor(model, device) {
  const runs = (pair) => {
    if (pair.device !== device) return false;
    return device === 'wasm' || (adapter && (pair.float_type !== 'float16' || adapter.features.has('shader-f16')));
  };
  return model.pairs.find(runs);
}

function chosen() {
  const model = selected();
  const devices = Object.keys(DEVICES).filter((device) => pairFor(model, device));
  $('device').replaceChildren(...devices.map((device) => new Option(DEVICES[device], device)));
  for (const id of ['model', 'device', 'load']) $(id).disabled = false;
  $('load').disabled = devices.length === 0;
  advise();
}

// What is to be known before a download.
function advise() {
  const model = selected();
  const pair = pairFor(model, $('device').value);
  let advice = '';
  if (!pair) {
    advice = `${model.folder} runs on WebGPU alone, which this browser does not have${adapter ? ' in float16' : ''}.`;
  } else if (isIos() && pair.bytes > IOS_BYTES) {
    advice =
      `${model.folder} needs over ${megabytes(2 * pair.bytes)} of memory while it loads. On this device a page may ` +
      `have about 1.5 GB, and ends without a word when it takes more: ${smallest().folder} is the one for it.`;
  } else if (pair.bytes > SMALL_BYTES) {
    advice = `${megabytes(pair.bytes)} are downloaded once, and kept; loading takes more than twice as much memory.`;
  } else if (!pairFor(model, 'webgpu')) {
    advice = adapter ? '' : 'There is no WebGPU here: WebAssembly does the work.';
  }
  $('advice').textContent = advice;
  $('advice').hidden = !advice;
}

async function load() {
  const model = selected();
  const device = $('device').value;
  const pair = pairFor(model, device);
  if (!pair) return;
  if (microphone) await stopMicrophone();
  [isReady, isKept] = [false, true];
  busy(true);
  closeAll('another model was loaded before this was recognised.');
  say(`Loading ${model.folder} …`);
  $('loading').hidden = $('loaded').hidden = false;
  for (const item of $('notices').querySelectorAll('[data-of=model]')) item.remove();
  remember('loading', bytes(model) > SMALL_BYTES ? model.folder : null);
  if (pair.bytes > SMALL_BYTES) navigator.storage?.persist?.(); // some browsers ask, and the download need not wait
  try {
    const threads = Math.min(navigator.hardwareConcurrency || 1, MAX_THREADS);
    const url = new URL(`models/${encodeURIComponent(model.folder)}/`, location.href).href;
    const {languages, threads: used} = await engine.open({model, url, pair, device, threads});
    remember('model', isKept ? model.folder : null);
    isReady = true;
    fillLanguages(languages);
    const gpu = [adapter?.info?.vendor, adapter?.info?.architecture].filter(Boolean).join(' ');
    const where = device === 'webgpu' ? `on WebGPU (${gpu})` : `in WebAssembly, ${used} thread${used > 1 ? 's' : ''}`;
    if (device === 'wasm' && used < threads && window.crossOriginIsolated) {
      notice('Several threads failed here: one does the work.', 'model');
    }
    say(`Ready: ${model.folder}, ${pair.precision}, ${where}.`);
  } catch (error) {
    say(`${model.folder} could not be loaded. ${error.message}`);
  }
  remember('loading', null);
  $('loading').hidden = $('loaded').hidden = true;
  busy(false);
}

function busy(isBusy) {
  if (isBusy) focused = document.activeElement;
  for (const id of ['model', 'device', 'load', 'forget']) $(id).disabled = isBusy;
  allow(!isBusy);
  if (!isBusy && document.activeElement === document.body) focused.focus({preventScroll: true});
}

// Speech, where there is a model for it.
function allow(isIdle = true) {
  for (const id of ['language', 'record', 'files']) $(id).disabled = !(isReady && isIdle);
}

async function forget() {
  busy(true);
  if (!engine.worker) engine.begin();
  try {
    const {bytes: freed} = await engine.ask({type: 'forget'});
    remember('model', null);
    say(`Kept models were deleted: ${megabytes(freed)}.`);
  } catch (error) {
    say(`Kept models could not be deleted. ${error.message}`);
  }
  busy(false);
}

function fillLanguages(languages) {
  const names = new Intl.DisplayNames(['en'], {type: 'language'});
  const before = $('language').value || remembered('language') || navigator.language.slice(0, 2);
  $('language').replaceChildren(...languages.map((code) => new Option(names.of(code), code)));
  $('language').value = languages.includes(before) ? before : languages.includes('en') ? 'en' : languages[0];
  $('language').onchange = () => remember('language', $('language').value);
}

function recogniseFiles(files) {
  for (const file of files) {
    const view = newView(file.name);
    engine.send({type: 'file', id: view.id, file, language: view.language});
  }
  $('files').value = '';
}

// What is still to be recognised never will be.
function closeAll(why) {
  for (const view of views.values()) if (view.isOpen) view.failed(why);
}

function newView(name) {
  const id = nextId++;
  const view = new View(name, $('language').value, () => engine.send({type: 'cancel', id}));
  view.id = id;
  views.set(id, view);
  return view;
}

function dragged(event) {
  event.preventDefault();
  $('drop').classList.toggle('over', event.type === 'dragover');
  if (event.type !== 'drop') return;
  if ($('files').disabled) say('Load a model first.');
  else recogniseFiles(event.dataTransfer.files);
}

// The button is not disabled meanwhile: it would lose the keyboard's focus.
async function toggleMicrophone() {
  if (isToggling) return;
  isToggling = true;
  if (microphone) await stopMicrophone();
  else await startMicrophone();
  isToggling = false;
}

async function startMicrophone() {
  const early = []; // before the recording has begun
  let receive = (samples) => early.push(samples);
  try {
    microphone = await openMicrophone((samples) => receive(samples));
  } catch (error) {
    return say(error.message);
  }
  if (!isReady) return stopMicrophone(); // another model is being loaded since
  const view = newView(`Microphone, ${new Date().toLocaleTimeString()}`);
  view.find('.cancel').onclick = () => (microphone?.id === view.id ? toggleMicrophone() : view.cancel());
  engine.send({type: 'live', id: view.id, rate: microphone.rate, language: view.language});
  receive = (samples) => {
    $('level').value = level(samples);
    engine.send({type: 'block', id: view.id, samples}, [samples.buffer]);
  };
  early.forEach(receive);
  microphone.id = view.id;
  microphone.track.onended = toggleMicrophone; // unplugged
  $('level').hidden = false;
  $('record').textContent = 'Stop';
  $('record').classList.add('listening');
  say('Listening: each phrase appears when you pause.');
}

async function stopMicrophone() {
  const {id, stop} = microphone;
  microphone = null;
  await stop();
  engine.send({type: 'stop', id});
  $('level').hidden = true;
  $('record').textContent = 'Speak';
  $('record').classList.remove('listening');
  say('The microphone is off.');
}

function selected() {
  return models.find(({folder}) => folder === $('model').value);
}

function smallest() {
  return models.reduce((least, model) => (bytes(model) < bytes(least) ? model : least));
}

// Of the smallest pair.
function bytes(model) {
  return Math.min(...model.pairs.map((pair) => pair.bytes));
}

function isIos() {
  const isIpad = /Macintosh/.test(navigator.userAgent) && navigator.maxTouchPoints > 1;
  return /iPad|iPhone|iPod/.test(navigator.userAgent) || isIpad;
}

function say(message) {
  $('status').textContent = message;
}

// of: "page", for as long as it is open, or "model", until another one is loaded.
function notice(message, of = 'page') {
  const known = [...$('notices').children].some((item) => item.textContent === message);
  const item = document.createElement('li');
  item.textContent = message;
  item.dataset.of = of;
  if (!known) $('notices').append(item);
}

// Across visits; null where the browser keeps nothing.
function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
}

function remember(name, value) {
  try {
    if (value === null) localStorage.removeItem(name);
    else localStorage.setItem(name, value);
  } catch {
    // a visit without memory
  }
}
