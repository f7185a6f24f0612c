// What is shown to the user as it is; any other error is a defect of the page.

export class PageError extends Error {}

export class AudioError extends PageError {}

// A file that is no WAV file, or one with a coding that wav.js does not read: the browser may know it.
export class NotWav extends AudioError {
  // sound: a Blob of what the browser may know, where that is only a part of the file
  constructor(message, sound = null) {
    super(message);
    this.sound = sound;
  }
}

export class ModelError extends PageError {}
