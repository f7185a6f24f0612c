// The discrete Fourier transform of 2^a times small factors: Stockham's, which needs no reordering.

// -> (real, imaginary), both Float64Array (size,), transformed in place; size: a product of 2s, 3s and 5s
export function makeFft(size) {
  const radices = factors(size);
  const cos = Float64Array.from({length: size}, (_, i) => Math.cos((2 * Math.PI * i) / size));
  const sin = Float64Array.from({length: size}, (_, i) => -Math.sin((2 * Math.PI * i) / size));
  const spare = [new Float64Array(size), new Float64Array(size)];
  return (real, imaginary) => {
    let from = [real, imaginary];
    let to = spare;
    let stride = 1;
    for (const radix of radices) {
      (radix === 2 ? halve : divide)(from, to, size, stride, radix, cos, sin);
      stride *= radix;
      [from, to] = [to, from];
    }
    if (from[0] !== real) {
      real.set(from[0]);
      imaginary.set(from[1]);
    }
  };
}

function factors(size) {
  const found = [];
  for (const prime of [5, 3, 2]) {
    for (; size % prime === 0; size /= prime) found.push(prime);
  }
  if (size !== 1) throw new RangeError(`a transform of a size with the factor ${size}; 2, 3 and 5 are supported`);
  return found;
}

// One step: `stride` transforms of size / stride become `radix` times as many, each that much shorter.
function divide([re, im], [toRe, toIm], size, stride, radix, cos, sin) {
  const apart = size / radix; // from one input of a butterfly to the next
  for (let p = 0; p < apart / stride; p++) {
    for (let j = 0; j < radix; j++) {
      const turn = p * j * stride; // in units of 1 / size of a whole turn
      for (let q = 0; q < stride; q++) {
        let a = 0;
        let b = 0;
        for (let k = 0; k < radix; k++) {
          const angle = (turn + j * k * apart) % size;
          const at = q + stride * p + apart * k;
          a += re[at] * cos[angle] - im[at] * sin[angle];
          b += re[at] * sin[angle] + im[at] * cos[angle];
        }
        toRe[q + stride * (radix * p + j)] = a;
        toIm[q + stride * (radix * p + j)] = b;
      }
    }
  }
}

// The same for radix 2, several times as fast.
function halve([re, im], [toRe, toIm], size, stride, _, cos, sin) {
  const apart = size / 2;
  for (let p = 0; p < apart / stride; p++) {
    const c = cos[p * stride];
    const s = sin[p * stride];
    for (let q = 0; q < stride; q++) {
      const at = q + stride * p;
      const out = q + 2 * stride * p;
      const a = re[at] - re[at + apart];
      const b = im[at] - im[at + apart];
      toRe[out] = re[at] + re[at + apart];
      toIm[out] = im[at] + im[at + apart];
      toRe[out + stride] = a * c - b * s;
      toIm[out + stride] = a * s + b * c;
    }
  }
}

// The power of the bins from `lowest` to `highest` of the two real signals that are one complex transform's input, the
// first as its real part: Float64Array each.
export function twoPowers(real, imaginary, lowest, highest) {
  const [first, second] = [new Float64Array(highest - lowest + 1), new Float64Array(highest - lowest + 1)];
  for (let bin = lowest; bin <= highest; bin++) {
    const mirror = (real.length - bin) % real.length;
    const [sumRe, sumIm] = [real[bin] + real[mirror], imaginary[bin] + imaginary[mirror]];
    const [differenceRe, differenceIm] = [real[bin] - real[mirror], imaginary[bin] - imaginary[mirror]];
    first[bin - lowest] = (sumRe ** 2 + differenceIm ** 2) / 4;
    second[bin - lowest] = (sumIm ** 2 + differenceRe ** 2) / 4;
  }
  return [first, second];
}
