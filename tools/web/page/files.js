// A model's files: fetched one after another, checked, and kept in the browser's own file system (OPFS), so that a
// download that was cut short goes on where it stopped, and the page works offline.

import {ModelError, PageError} from './errors.js';

// Of the browser's file system, which all pages of a host share.
const FOLDER = encodeURIComponent(new URL('models', import.meta.url).pathname);
const CHECKSUM = /-[0-9a-f]{16}$/; // at the end of a model's id
const TRIES = 5; // without a byte in between
const WAIT_MS = 1000; // before another try; doubled each time
const BUSY = [408, 425, 429]; // answers that another try may change, as those from 500 on

export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

export class ModelFiles {
  // url: of the model's folder;  model: of models.json;  names: of the files that will be read;
  // report({loaded, total}) as bytes come;  notice: told in a sentence why files are not kept
  constructor(url, model, names, report, notice) {
    Object.assign(this, {url, model, report, notice});
    this.sizes = new Map(names.map((name) => [name, 0])); // bytes of each that are there
    this.total = names.reduce((sum, name) => sum + this.described(name).bytes, 0);
    this.folder = null;
    this.isFull = false; // the disk
  }

  described(name) {
    const file = this.model.files[name];
    if (!file) throw new ModelError(`models.json says nothing of ${name}: the model's folder is incomplete`);
    return file;
  }

  // Finds what is kept; earlier versions of the model are deleted.
  async open() {
    try {
      const models = await (await navigator.storage.getDirectory()).getDirectoryHandle(FOLDER, {create: true});
      for await (const name of models.keys()) {
        const isEarlier = name.replace(CHECKSUM, '') === this.model.folder && name !== this.model.id;
        if (isEarlier) await models.removeEntry(name, {recursive: true});
      }
      this.folder = await models.getDirectoryHandle(this.model.id, {create: true});
    } catch (error) {
      this.notice(
        'The model cannot be kept on this device, so each visit downloads it again: ' +
          (globalThis.isSecureContext ? `this is a private window, or its storage is closed (${error.name}).` : HTTP),
      );
    }
    return this;
  }

  // The bytes of a file, as models.json describes it. Throws ModelError, PageError.
  async read(name) {
    const kept = await this.kept(name);
    if (kept) return kept;
    for (const isLast of [false, true]) {
      const bytes = await this.download(name).catch((error) => this.withoutDisk(name, error));
      if (await this.isRight(name, bytes)) {
        await this.mark(name);
        return bytes;
      }
      await this.remove(name);
      if (isLast) {
        throw new ModelError(
          `${name} is not the file that models.json describes (${megabytes(bytes.length)}, of another checksum): it ` +
            'was changed in the middle of the download, or is damaged. Reload the page.',
        );
      }
    }
  }

  // Where the disk is full, files stay in memory.
  async withoutDisk(name, error) {
    if (!(error instanceof QuotaExceeded)) throw error;
    this.isFull = true;
    await this.remove(name);
    const {usage = 0, quota = 0} = await navigator.storage.estimate();
    this.notice(
      `The model (${megabytes(this.total)}) cannot be kept on this device: the browser gives this page ` +
        `${megabytes(quota)}, of which ${megabytes(usage)} are used. It is held in memory, and the next visit ` +
        'downloads it again.',
    );
    return this.download(name);
  }

  async kept(name) {
    if (!this.folder || !(await this.exists(`${name}.checked`)) || !(await this.exists(name))) return null;
    const file = await (await this.folder.getFileHandle(name)).getFile();
    if (file.size !== this.described(name).bytes) return null;
    this.count(name, file.size);
    return new Uint8Array(await file.arrayBuffer());
  }

  async exists(name) {
    return this.folder.getFileHandle(name).then(
      () => true,
      () => false,
    );
  }

  async mark(name) {
    if (this.folder && !this.isFull) await this.folder.getFileHandle(`${name}.checked`, {create: true});
  }

  async remove(name) {
    this.count(name, 0);
    if (this.folder) await this.folder.removeEntry(name).catch(() => {});
  }

  count(name, bytes) {
    this.sizes.set(name, bytes);
    this.report({loaded: [...this.sizes.values()].reduce((sum, size) => sum + size, 0), total: this.total});
  }

  async download(name) {
    const sink = await this.sink(name);
    try {
      for (let tries = 0; sink.size < this.described(name).bytes; tries++) {
        const before = sink.size;
        try {
          await this.fetchRest(name, sink);
          break;
        } catch (error) {
          if (error instanceof PageError) throw error;
          if (sink.size > before) tries = 0;
          if (tries + 1 >= TRIES) {
            throw new PageError(
              `The download of ${name} came to a stop after ${megabytes(sink.size)} (${error.message}).` +
                (this.folder ? ' What has come is kept: load the model again to go on.' : ''),
            );
          }
          await new Promise((resolve) => setTimeout(resolve, WAIT_MS * 2 ** tries));
        }
      }
      return sink.read();
    } finally {
      sink.close();
    }
  }

  // From the first byte that is not there, if the server can do that; else from the start.
  async fetchRest(name, sink) {
    // no-store: the browser's cache would be a second copy of gigabytes
    const headers = sink.size > 0 ? {Range: `bytes=${sink.size}-`} : {};
    const response = await fetch(new URL(encodeURIComponent(name), this.url), {headers, cache: 'no-store'});
    if (response.status === 416 || (response.status === 200 && sink.size > 0)) sink.clear();
    if (response.status === 416) throw new Error('the server has fewer bytes');
    if (response.status >= 500 || BUSY.includes(response.status)) {
      throw new Error(`the server answered ${response.status}`);
    }
    if (!response.ok) {
      throw new ModelError(
        `${name} is not there (the server answered ${response.status}): the model's folder is incomplete`,
      );
    }
    const reader = response.body.getReader();
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      this.store(sink, part.value, name);
      if (sink.size > this.described(name).bytes) return reader.cancel(); // another file: its checksum will say so
      this.count(name, sink.size);
    }
  }

  store(sink, bytes, name) {
    try {
      sink.write(bytes);
    } catch (error) {
      if (error.name !== 'QuotaExceededError') throw error;
      throw new QuotaExceeded(name);
    }
  }

  async sink(name) {
    if (!this.folder || this.isFull) return new MemorySink(this.described(name).bytes);
    try {
      const handle = await this.folder.getFileHandle(name, {create: true});
      return new FileSink(await handle.createSyncAccessHandle());
    } catch (error) {
      this.notice(`${name} cannot be kept on this device (${error.name}): is the page open in another tab, too?`);
      return new MemorySink(this.described(name).bytes);
    }
  }

  async isRight(name, bytes) {
    const {bytes: size, sha256} = this.described(name);
    if (bytes.length !== size) return false;
    if (!crypto.subtle) return true; // no secure context: the length is all that can be checked
    const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes));
    return Array.from(digest, (byte) => byte.toString(16).padStart(2, '0')).join('') === sha256;
  }
}

const HTTP = 'the address begins with http://, and browsers give storage to https:// and localhost alone.';

class QuotaExceeded extends PageError {}

class MemorySink {
  constructor(bytes) {
    this.buffer = new Uint8Array(bytes);
    this.size = 0;
  }

  write(bytes) {
    this.buffer.set(bytes.subarray(0, this.buffer.length - this.size), this.size);
    this.size += bytes.length;
  }

  read() {
    return this.buffer.subarray(0, this.size);
  }

  clear() {
    this.size = 0;
  }

  close() {}
}

class FileSink {
  constructor(handle) {
    this.handle = handle;
    this.size = handle.getSize();
  }

  write(bytes) {
    const written = this.handle.write(bytes, {at: this.size});
    if (written < bytes.length) throw new DOMException('the disk is full', 'QuotaExceededError');
    this.size += written;
  }

  read() {
    this.handle.flush();
    const bytes = new Uint8Array(this.size);
    this.handle.read(bytes, {at: 0});
    return bytes;
  }

  clear() {
    this.handle.truncate(0);
    this.size = 0;
  }

  close() {
    this.handle.close();
  }
}

// Deletes every model that is kept -> how many bytes that were.
export async function deleteModels() {
  const root = await navigator.storage.getDirectory();
  const before = (await navigator.storage.estimate()).usage ?? 0;
  await root.removeEntry(FOLDER, {recursive: true}).catch((error) => {
    if (error.name !== 'NotFoundError') throw error;
  });
  return Math.max(0, before - ((await navigator.storage.estimate()).usage ?? 0));
}
