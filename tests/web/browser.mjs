// Drives the page in a browser, for tests/test_web.py:  node browser.mjs SCENARIO '{"url": ..., ...}'
// Prints one line of JSON: what the scenario found, and everything that the console and the network said was wrong.
// Needs the npm packages puppeteer-core and axe-core, in COHERE_LITE_NODE_MODULES.

import {createRequire} from 'node:module';
import {mkdtempSync, rmSync} from 'node:fs';
import {tmpdir} from 'node:os';
import path from 'node:path';

const require = createRequire(path.join(process.env.COHERE_LITE_NODE_MODULES, 'x.js'));
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
  page.setDefaultTimeout(given.timeout ?? 300_000);
  watch(page);
  if (given.before) await page.evaluateOnNewDocument(given.before);
  await page.goto(url, {waitUntil: 'load'});
  return page;
}

function watch(page) {
  page.on('console', (message) => {
    if (['error', 'warn', 'warning'].includes(message.type())) problems.push(message.text());
  });
  page.on('pageerror', (error) => problems.push(String(error)));
}

// Waits until the status says so, over the reload that the first visit makes.
async function status(page, pattern) {
  await until(async () => pattern.test(await read(page, '#status')), `status ${pattern}`, page);
  return read(page, '#status');
}

async function until(condition, what, page) {
  const end = Date.now() + (given.timeout ?? 300_000);
  for (;;) {
    try {
      if (await condition()) return;
    } catch (error) {
      if (!/context|detached|navigat|destroyed|frame/i.test(error.message)) throw error; // it is being reloaded
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
  await status(page, /^(Ready|Choose|.*could not)/);
  if ((await page.$eval('#device', (select) => select.value)) !== device) {
    await page.select('#device', device);
    await page.click('#load');
    await status(page, /…$/);
  }
  return status(page, /^(Ready|.*could not)/);
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
      remarks: [...article.querySelectorAll('.advice li')].map((item) => item.textContent),
      isDrawn: article
        .querySelector('canvas')
        .getContext('2d')
        .getImageData(0, 0, 20, 60)
        .data.some((value, i) => i % 4 < 3 && value > 0),
    })),
  );
}

const SCENARIOS = {
  // files: [path, language] pairs, recognised in turn
  async texts() {
    const page = await opened();
    const ready = await loaded(page, given.device);
    const found = [];
    for (const [file, language] of given.files) found.push(...(await recognised(page, [file], language)));
    const isolated = await page.evaluate(() => window.crossOriginIsolated);
    return {ready, found, notices: await notices(page), isolated, screenshot: await shot(page)};
  },
};

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
