// Makes the page work offline after its first visit; and adds the headers that threads need, on hosts that set none.
// There is one service worker for a page, so it does both.

// Both are filled in by tools/web.
const VERSION = '';
const FILES = [];
const SCOPE = self.registration.scope; // other pages of the host have caches, too
const MODELS = new URL('models/', SCOPE).href;
const CACHE = `${SCOPE} ${VERSION}`;

// A later version waits until the page is closed: it must not mix its modules with those that are running.
self.addEventListener('install', (event) => event.waitUntil(keepAll()));

self.addEventListener('activate', (event) => event.waitUntil(takeOver()));

self.addEventListener('fetch', (event) => {
  const url = new URL(event.request.url);
  const isOurs = url.origin === self.location.origin && event.request.method === 'GET';
  if (isOurs) event.respondWith(answer(event.request, url).then(withHeaders));
});

async function keepAll() {
  const cache = await caches.open(CACHE);
  // reload: what the browser's own cache holds may be of an earlier version
  for (const file of FILES) await cache.add(new Request(file, {cache: 'reload'}));
}

async function takeOver() {
  const earlier = (await caches.keys()).filter((name) => name.startsWith(`${SCOPE} `) && name !== CACHE);
  for (const name of earlier) await caches.delete(name);
  await self.clients.claim();
}

async function answer(request, url) {
  if (url.href.startsWith(MODELS)) return fetch(request); // files.js keeps them
  const cache = await caches.open(CACHE);
  if (url.pathname.endsWith('/models.json')) {
    try {
      return await kept(cache, request);
    } catch {
      return (await cache.match(request)) ?? Response.error();
    }
  }
  return (await cache.match(request, {ignoreSearch: true})) ?? kept(cache, request);
}

async function kept(cache, request) {
  const response = await fetch(request);
  if (response.ok) await cache.put(request, response.clone());
  return response;
}

function withHeaders(response) {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set('Cross-Origin-Opener-Policy', 'same-origin');
  headers.set('Cross-Origin-Embedder-Policy', 'require-corp'); // Safari knows no other
  headers.set('Cross-Origin-Resource-Policy', 'same-origin');
  return new Response(response.body, {status: response.status, statusText: response.statusText, headers});
}
