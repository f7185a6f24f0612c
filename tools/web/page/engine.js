// The worker that holds the model, as the page sees it.

import {PageError} from './errors.js';

export const MAX_THREADS = 8; // more only wait for each other

export class Engine {
  // on: handlers by type of the worker's messages (see worker.js), called with the message; and `ended`, with a sentence,
  // for a worker that ended by itself
  constructor(on) {
    this.on = on;
    this.worker = null;
    this.answer = null; // to the request that is under way: {resolve, reject}
  }

  // Loads a model: {threads}. Where several threads fail, as on some telephones, once more with one, and with less
  // memory reserved. Throws PageError.
  async open(request) {
    try {
      return await this.start(request);
    } catch (error) {
      if (error.isOurs || request.threads === 1) throw new PageError(error.message);
      return await this.start({...request, threads: 1, isCautious: true}).catch((again) => {
        throw new PageError(again.message);
      });
    }
  }

  start(request) {
    this.begin();
    return this.ask({type: 'open', ...request});
  }

  // A worker without a model.
  begin() {
    this.close();
    this.worker = new Worker(new URL('worker.js', import.meta.url), {type: 'module'});
    this.worker.onmessage = ({data}) => this.receive(data);
    this.worker.onerror = (event) => {
      event.preventDefault();
      const message = `The recogniser ended: ${event.message ?? 'its files are not there, or there is no memory left'}.`;
      this.answer?.reject({message});
      this.on.ended(message);
    };
  }

  // Sends a request that the worker answers once.
  ask(request) {
    return new Promise((resolve, reject) => {
      this.answer = {resolve, reject};
      this.worker.postMessage(request);
    });
  }

  send(message, transfer = []) {
    this.worker.postMessage(message, transfer);
  }

  receive(message) {
    if (message.type === 'opened' || message.type === 'forgotten') this.answer?.resolve(message);
    else if (message.type === 'failed' && message.id === undefined) this.answer?.reject(message);
    else this.on[message.type](message);
  }

  close() {
    this.worker?.terminate();
    this.worker = null;
  }
}
