// Drives the page in a browser, for tests/test_web.py:  node browser.mjs SCENARIO '{"url": ..., ...}'
// Prints one line of JSON: what the scenario found, and everything that the console and the network said was wrong.
// Needs the npm packages puppeteer-core and axe-core, in COHERE_LITE_WEB_MODULES.

import {createRequire} from 'node:module';
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';

const require = createRequire(path.join(process.env.COHERE_LITE_WEB_MODULES, 'x.js'));
const puppeteer = require('puppeteer-core');

const [scenario, given] = [process.argv[2], JSON.parse(process.argv[3])];
const problems = [];
const profile = mkdtempSync(path.join(tmpdir(), 'profile-'));
const browser = await puppeteer.launch({
  browser: given.browser ?? 'chrome',
  executablePath: given.executable,
  headless: true,
  userDataDir: profile,
  protocolTimeout: 600_000,
  ...(given.browser === 'firefox'
    ? {extraPrefsFirefox: given.preferences ?? {}}
    : {args: ['--no-sandbox', '--autoplay-policy=no-user-gesture-required', ...(given.flags ?? [])]}),
});

async function opened(url = given.url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(given.timeout ?? 120_000);
  watch(page);
  if (given.before) await page.evaluateOnNewDocument(given.before);
  await page.goto(url, {waitUntil: 'load'});
  return page;
}

function watch(page) {
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text());
  });
  page.on('pageerror', (error) => problems.push(String(error)));
}

// Waits until the status says so, over the reload that the first visit makes.
async function status(page, pattern) {
  await until(async () => pattern.test(await read(page, '#status')), `status ${pattern}`, page);
  return read(page, '#status');
}

async function until(condition, what, page) {
  const end = Date.now() + (given.timeout ?? 120_000);
  for (;;) {
    try {
      if (await condition()) return;
    } catch (error) {
      if (!/context|world|detached|navigat|destroyed|frame/i.test(error.message)) throw error; // it is being reloaded
    }
    if (Date.now() > end) {
      const shown = await page.evaluate(() => document.body.innerText).catch((error) => error.message);
      throw new Error(`waited in vain for ${what}; the page shows: ${shown}; problems: ${problems.join(' | ')}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

const read = (page, selector) => page.$eval(selector, (element) => element.textContent);

const notices = (page) => page.$$eval('#notices li', (items) => items.map((item) => item.textContent));

// Loads the model on a device, unless it is there.
async function loaded(page, device = 'wasm') {
  const first = await status(page, /^(Ready|Choose|The list|.*could not)/);
  if (!/^(Ready|Choose)/.test(first)) return first;
  if ((await page.$eval('#device', (select) => select.value)) !== device) {
    await page.select('#device', device);
    await page.click('#load');
    await status(page, /…$/);
  }
  return status(page, /^(Ready|The list|.*could not)/);
}

// Recognises files -> for each what its part of the page shows.
async function recognised(page, files, language = 'en') {
  await page.select('#language', language);
  const before = (await page.$$('.recording')).length;
  await (await page.$('#files')).uploadFile(...files);
  await until(
    async () => {
      const states = await page.$$eval('.recording', (articles) => articles.map((article) => article.dataset.state));
      return states.length === before + files.length && states.every((state) => ['done', 'failed'].includes(state));
    },
    'the recordings',
    page,
  );
  return (await shown(page)).slice(0, files.length).reverse();
}

function shown(page) {
  return page.$$eval('.recording', (articles) =>
    articles.map((article) => ({
      name: article.querySelector('h3').textContent,
      state: article.dataset.state,
      text: article.querySelector('.text').textContent,
      lang: article.querySelector('.text').lang,
      facts: article.querySelector('.facts').textContent,
      buttons: [...article.querySelectorAll('button:not([hidden])')].map((button) => button.textContent),
      remarks: [...article.querySelectorAll('.advice li')].map((item) => item.textContent),
      isDrawn: article
        .querySelector('canvas')
        .getContext('2d')
        .getImageData(0, 0, 20, 60)
        .data.some((value, i) => i % 4 < 3 && value > 0),
    })),
  );
}

// What screen readers say of an element.
async function accessible(page, selector) {
  const {role, name, pressed, focused} = await page.accessibility.snapshot({
    root: await page.$(selector),
    interestingOnly: false,
  });
  return {role, name, pressed, focused};
}

// What lies in the OPFS: names of the models' files.
function kept(page) {
  return page.evaluate(async () => {
    const found = [];
    const walk = async (folder) => {
      for await (const [name, handle] of folder.entries()) {
        if (handle.kind === 'directory') await walk(handle);
        else found.push(name);
      }
    };
    await walk(await navigator.storage.getDirectory());
    return found.sort();
  });
}

function evict(page, file) {
  return page.evaluate(async (file) => {
    const walk = async (folder) => {
      for await (const [name, handle] of folder.entries()) {
        if (handle.kind === 'directory') await walk(handle);
        else if (name === file) await folder.removeEntry(name);
      }
    };
    await walk(await navigator.storage.getDirectory());
  }, file);
}

const facts = async (page) => ({
  notices: await notices(page),
  advice: await read(page, '#advice'),
  isolated: await page.evaluate(() => window.crossOriginIsolated),
  seen: await page.evaluate(() => window.seen), // by what the test has put into the page
  screenshot: await shot(page),
});

const SCENARIOS = {
  // files: [path, language] pairs, recognised in turn
  async texts() {
    const page = await opened();
    const ready = await loaded(page, given.device);
    const found = [];
    for (const [file, language] of given.files ?? []) found.push(...(await recognised(page, [file], language)));
    return {ready, found, ...(await facts(page))};
  },

  // several files at once, each a text of its own
  async together() {
    const page = await opened();
    await loaded(page);
    return {found: await recognised(page, given.files), ...(await facts(page))};
  },

  // The fake microphone plays a file once; whatever is heard until the text comes is one recording.
  async microphone() {
    const page = await opened();
    await loaded(page);
    await page.focus('#record');
    await page.keyboard.press('Space');
    const level = [];
    await until(
      async () => {
        level.push(await page.$eval('#level', (meter) => meter.value));
        return (await read(page, '.recording .text').catch(() => '')).length > 0;
      },
      'a phrase',
      page,
    );
    const whileListening = await shown(page);
    const named = [await accessible(page, '#record'), await accessible(page, '#level')];
    await page.keyboard.press('Space');
    await until(async () => (await shown(page))[0].state === 'done', 'the end', page);
    return {level: Math.max(...level), whileListening, named, found: await shown(page), ...(await facts(page))};
  },

  // A visit with the server there, and one after the test, which waits for a line, has ended it.
  async offline() {
    const page = await opened();
    await loaded(page);
    await pause();
    await page.reload();
    const ready = await loaded(page);
    return {ready, found: await recognised(page, given.files), ...(await facts(page))};
  },

  // A visit in which the test changes page.js and worker.js, and one after it: the ends of both files.
  async update() {
    const page = await opened();
    await loaded(page);
    await pause();
    await page.reload();
    await loaded(page);
    await until(() => page.evaluate(async () => (await caches.keys()).length === 2), 'the new version', page);
    await until(
      () => page.evaluate(async () => !(await navigator.serviceWorker.getRegistration()).installing),
      'its installation',
      page,
    );
    await new Promise((resolve) => setTimeout(resolve, 3000)); // in which it could take over
    const ends = (of) =>
      of.evaluate(async () => {
        const texts = ['page.js', 'worker.js'].map(async (name) => (await (await fetch(name)).text()).slice(-4));
        return Promise.all(texts);
      });
    const during = await ends(page);
    await browser.newPage();
    await page.close();
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const next = await opened();
    await loaded(next);
    return {during, after: await ends(next), ...(await facts(next))};
  },

  // What is kept after a visit, what the next one finds, and what the button leaves.
  async keeping() {
    const page = await opened();
    await loaded(page);
    const after = await kept(page);
    if (given.evicted) await evict(page, given.evicted);
    await page.reload();
    const ready = await loaded(page);
    await page.click('#forget');
    const deleted = await status(page, /deleted/);
    return {after, ready, deleted, left: await kept(page), ...(await facts(page))};
  },

  // A disk that has no room.
  async quota() {
    const page = await browser.newPage();
    watch(page);
    const session = await page.createCDPSession();
    await page.goto(`${given.url}icon.svg`);
    await session.send('Storage.overrideQuotaForOrigin', {origin: new URL(given.url).origin, quotaSize: given.quota});
    await page.goto(given.url);
    const ready = await loaded(page);
    return {ready, found: await recognised(page, given.files), ...(await facts(page))};
  },

  // The choice of a model, and what is said of each.
  async choice() {
    const page = await opened();
    const ready = await status(page, /^(Ready|Choose)/);
    const said = {};
    for (const model of await page.$$eval('#model option', (options) => options.map((option) => option.value))) {
      await page.select('#model', model);
      said[model] = await read(page, '#advice');
    }
    return {ready, said, ...(await facts(page))};
  },

  // What comes of a request to another host.
  async elsewhere() {
    const page = await opened();
    await loaded(page);
    const fetched = (url) => fetch(url, {mode: 'no-cors'}).then(() => 'answered', String);
    return {answer: await page.evaluate(fetched, given.elsewhere), ...(await facts(page))};
  },

  // Two models, one after the other.
  async two() {
    const page = await opened();
    await loaded(page);
    await page.select('#model', given.model);
    await page.click('#load');
    await status(page, /…$/);
    const ready = await loaded(page);
    const focused = await page.evaluate(() => document.activeElement.id);
    return {ready, focused, kept: await kept(page), ...(await facts(page))};
  },

  // A file, while the microphone listens.
  async both() {
    const page = await opened();
    await loaded(page);
    await page.click('#record');
    await until(async () => (await shown(page))[0]?.state === 'working', 'the microphone', page);
    await (await page.$('#files')).uploadFile(...given.files);
    await until(async () => (await shown(page))[0].state === 'done', 'the file', page);
    const states = await shown(page);
    await page.click('#load');
    await until(async () => (await shown(page))[1].state !== 'working', 'the end', page);
    const ready = await status(page, /^Ready/);
    return {states, after: await shown(page), ready, ...(await facts(page))};
  },

  // A microphone that ends by itself, or once it was stopped: what is left of it.
  async ends() {
    const page = await opened();
    await loaded(page);
    await page.click('#record');
    await until(async () => (await shown(page)).length > 0, 'the recording', page);
    if (given.stops) {
      await page.click('#record');
      await until(async () => (await read(page, '#record')) === 'Speak', 'the end of listening', page);
      await page.click('.cancel');
    }
    await until(async () => (await shown(page))[0].state !== 'working', 'the end', page);
    await until(async () => (await read(page, '#record')) === 'Speak', 'the end of listening', page);
    const isDisabled = await page.$eval('#record', (button) => button.disabled);
    return {found: await shown(page), isDisabled, status: await read(page, '#status'), ...(await facts(page))};
  },

  // Live speech of 75 s, silent from the 30th to the 60th: where its picture of the last minute has colours.
  async picture() {
    const page = await opened();
    await loaded(page);
    const drawn = await page.evaluate(async () => {
      const {View} = await import('./view.js');
      const view = new View('speech', 'en', () => {});
      view.started(null);
      const picture = (columns) => ({columns, rows: 64, pixels: new Uint8ClampedArray(64 * columns).fill(255)});
      view.add({start: 0, end: 30, text: ''}, picture(300), 1);
      view.add({start: 30, end: 60, text: ''}, null, 1);
      view.add({start: 60, end: 75, text: ''}, picture(150), 1);
      const {data} = view.find('canvas').getContext('2d').getImageData(0, 30, 600, 1);
      return Array.from({length: 600}, (_, column) => data[4 * column + 3] > 0);
    });
    return {drawn, ...(await facts(page))};
  },

  // Files of which one was chosen, and is not there any more when its turn comes.
  async moved() {
    const page = await opened();
    await loaded(page);
    await (await page.$('#files')).uploadFile(given.folder);
    await until(async () => (await shown(page))[0]?.state === 'failed', 'the folder', page);
    return {found: await shown(page), ...(await facts(page))};
  },

  // What the buttons save.
  async downloads() {
    const page = await opened();
    const session = await browser.target().createCDPSession();
    await session.send('Browser.setDownloadBehavior', {behavior: 'allow', downloadPath: given.folder});
    await loaded(page);
    await recognised(page, given.files);
    for (const style of ['txt', 'srt', 'vtt']) await page.click(`.download[data-style=${style}]`);
    await new Promise((resolve) => setTimeout(resolve, 3000));
    return facts(page);
  },

  // The rules of WCAG that a program can check, in light and dark, on a telephone's screen too; and the keyboard.
  async accessibility() {
    const page = await opened();
    await loaded(page);
    await recognised(page, given.files);
    const violations = [];
    const shots = [];
    for (const [width, scheme] of [
      [1000, 'light'],
      [1000, 'dark'],
      [360, 'light'],
      [360, 'dark'],
    ]) {
      await page.setViewport({width, height: 740});
      await page.emulateMediaFeatures([
        {name: 'prefers-color-scheme', value: scheme},
        {name: 'prefers-reduced-motion', value: 'reduce'},
      ]);
      // The page's own policy lets no other script in: axe-core comes by the debugger.
      await page.evaluate(require('axe-core').source);
      const {violations: found} = await page.evaluate(() => window.axe.run());
      violations.push(...found.map(({id, nodes}) => `${width} ${scheme} ${id}: ${nodes[0].html}`));
      const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
      if (overflow > 0) violations.push(`${width}: ${overflow} pixels too wide`);
      if (given.screenshot) {
        await page.screenshot({path: `${given.screenshot}-${width}-${scheme}.png`, fullPage: true});
        shots.push(`${given.screenshot}-${width}-${scheme}.png`);
      }
    }
    const reached = [];
    await page.focus('body');
    for (let i = 0; i < 20; i++) {
      await page.keyboard.press('Tab');
      reached.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
    }
    const duration = await page.$eval('.text span', (span) => getComputedStyle(span).transitionDuration);
    return {violations, reached, duration, shots, seen: await page.evaluate(() => window.seen)};
  },
};

// Until the test has done something.
async function pause() {
  console.log('waiting');
  await new Promise((resolve) => process.stdin.once('data', resolve));
}

async function shot(page) {
  if (!given.screenshot) return null;
  await page.screenshot({path: given.screenshot, fullPage: true});
  return given.screenshot;
}

let result;
try {
  result = await SCENARIOS[scenario]();
} catch (error) {
  result = {error: String(error.stack)};
} finally {
  await browser.close();
  rmSync(profile, {recursive: true, force: true, maxRetries: 5});
}
console.log(JSON.stringify({...result, problems}));
process.exit(result.error ? 1 : 0);
