// Runs where the browser makes its sound: hands over what comes in, in blocks of 0.1 s or less.

const BLOCK = 4096; // samples

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(BLOCK);
    this.filled = 0;
    this.isEnded = false;
    this.port.onmessage = () => this.end();
  }

  // The last samples, and null after them.
  end() {
    this.isEnded = true;
    if (this.filled) this.port.postMessage(this.block.slice(0, this.filled)); // an empty block has no level
    this.port.postMessage(null);
  }

  process([[channel]]) {
    if (this.isEnded) return false;
    if (!channel) return true; // nothing is connected yet
    this.block.set(channel, this.filled); // 128 samples, a part of a block
    this.filled += channel.length;
    if (this.filled === BLOCK) {
      this.port.postMessage(this.block, [this.block.buffer]);
      this.block = new Float32Array(BLOCK);
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor('tap', Tap);
