// Files that are no WAV files -> samples, by the browser's own decoder, which holds the whole recording in memory.

import {AudioError} from './errors.js';
import {SAMPLE_RATE} from './mel.js';
import {clock} from './transcript.js';

const MAX_BYTES_PER_S = 55_000; // of a file that does not say how long it is
const LACKING_S = 1; // a file that lacks more was cut short; some say how long they are by an estimate
const METADATA_MS = 10_000; // after which a file is taken for one that says nothing; some telephones do not look

// -> {rate, channels, duration, warnings}: duration in seconds. Throws AudioError, for more than maxS seconds, too.
export async function decodeByBrowser(file, maxS) {
  const {seconds, isVideo} = await described(file);
  const isLong = Number.isFinite(seconds) ? seconds > maxS : file.size > maxS * MAX_BYTES_PER_S;
  if (isLong) {
    const length = Number.isFinite(seconds) ? `lasts ${clock(seconds)}` : `has ${Math.round(file.size / 1e6)} MB`;
    throw new AudioError(
      `it ${length}, and the browser's decoder holds all of it in memory, 3 GB for an hour of stereo: convert it to a ` +
        `WAV file, which is read piece by piece, or cut it into parts of ${maxS / 60} minutes`,
    );
  }
  // At 16 kHz it takes the least memory.
  const context = new OfflineAudioContext(1, 1, SAMPLE_RATE);
  try {
    const audio = await context.decodeAudioData(await file.arrayBuffer());
    const channels = Array.from({length: audio.numberOfChannels}, (_, i) => audio.getChannelData(i).slice());
    return {rate: SAMPLE_RATE, channels, duration: audio.duration, warnings: lacking(seconds, audio.duration, isVideo)};
  } catch (error) {
    if (/memory|alloc/i.test(error.message)) throw new AudioError('there is not enough memory to decode it');
    throw new AudioError('no sound that this browser can decode; WAV of 16 bits works in all of them');
  }
}

function lacking(seconds, decoded, isVideo) {
  if (!(Number.isFinite(seconds) && seconds - decoded > LACKING_S)) return [];
  if (isVideo) {
    const lengths = `the video lasts ${clock(seconds)}, and its sound ${clock(decoded)}`;
    return [`${lengths}: where the picture begins before the sound, the times of subtitles are too early by as much`];
  }
  const found = `the file says that it lasts ${clock(seconds)}, and the browser's decoder found ${clock(decoded)}`;
  return [`${found}: it may have been cut short; using what is there`];
}

// What the file says of itself: {seconds, isVideo}; seconds: NaN where it says nothing.
function described(file) {
  const video = document.createElement('video'); // which takes recordings without a picture, too
  const url = URL.createObjectURL(file);
  return new Promise((resolve) => {
    const answer = () => resolve({seconds: video.duration, isVideo: video.videoWidth > 0});
    video.onloadedmetadata = video.onerror = answer;
    setTimeout(answer, METADATA_MS);
    video.preload = 'metadata';
    video.src = url;
  }).finally(() => {
    video.removeAttribute('src');
    URL.revokeObjectURL(url);
  });
}
