// The microphone, at its own rate: Firefox refuses contexts of another one, and resample.js takes any.

import {PageError} from './errors.js';

// onSamples(Float32Array) as they come -> {rate, stop}; stop() waits for the last of them. Throws PageError.
export async function openMicrophone(onSamples) {
  if (!navigator.mediaDevices) {
    throw new PageError('Browsers give the microphone to https:// and localhost alone; this address is http://.');
  }
  let stream;
  try {
    // What makes a voice pleasant to hear on a telephone takes away what a recogniser listens to.
    const audio = {channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false};
    stream = await navigator.mediaDevices.getUserMedia({audio});
  } catch (error) {
    throw new PageError(FAILURES[error.name] ?? `The microphone cannot be opened: ${error.message}.`);
  }
  const context = new AudioContext();
  const close = () => {
    for (const track of stream.getTracks()) track.stop();
    return context.close();
  };
  try {
    await context.audioWorklet.addModule(new URL('microphone-worklet.js', import.meta.url));
    // Mixed by the browser: a stereo device may give both channels all the same, and hear on the second one alone.
    const tap = new AudioWorkletNode(context, 'tap', {
      numberOfOutputs: 0,
      channelCount: 1,
      channelCountMode: 'explicit',
    });
    const ended = new Promise((resolve) => {
      tap.port.onmessage = ({data}) => (data ? onSamples(data) : resolve());
    });
    context.createMediaStreamSource(stream).connect(tap);
    await context.resume(); // Safari starts them suspended
    const stop = async () => {
      tap.port.postMessage('end');
      await ended;
      await close();
    };
    return {rate: context.sampleRate, stop, track: stream.getAudioTracks()[0]};
  } catch (error) {
    close();
    throw new PageError(`The microphone cannot be listened to: ${error.message}.`);
  }
}

const FAILURES = {
  NotAllowedError: 'The microphone is not allowed to this page: the browser asks, or its settings say.',
  NotFoundError: 'There is no microphone on this device.',
  NotReadableError: 'The microphone cannot be opened: another program may be using it.',
};

// dB of full scale, -60 at least.
export function level(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return Math.max(-60, 10 * Math.log10(power + 1e-12));
}
