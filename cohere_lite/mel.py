"""Log-mel features, the numbers of the reference's `CohereAsrFeatureExtractor` (transformers 5.23): dither,
pre-emphasis, windowed power spectrum, mel filterbank, log, normalisation per mel bin. The signal path is float32 like
the reference's; tables are worked out in float64 and rounded once."""

from functools import cache

import numpy as np
from numpy.typing import NDArray

# Defaults of `CohereAsrFeatureExtractor`
SAMPLE_RATE = 16_000  # Hz
HOP_LENGTH = 160  # samples from one frame to the next: 10 ms
WIN_LENGTH = 400  # samples: 25 ms
N_FFT = 512  # samples; the window is followed by zeros
N_MELS = 128  # bins, 0 Hz to SAMPLE_RATE / 2
PREEMPHASIS = 0.97
DITHER = 1e-5  # standard deviation of the noise added to samples in -1..1
LOG_GUARD = 2.0**-24  # added before the logarithm: `LOG_ZERO_GUARD_VALUE`
STD_GUARD = 1e-5  # added to the standard deviation: `EPSILON`

_WINDOW = np.hanning(WIN_LENGTH).astype(np.float32)  # symmetric: `torch.hann_window(400, periodic=False)`

# Work goes in blocks that stay in a core's cache. Measured on one core of an AMD EPYC with 1 MB of L2:
_FRAME_BLOCK = 128  # frames; the FFTs of 11 s take 2.1 ms in blocks of 16, 1.5 of 128, 2.7 of 256, 4.7 in one piece
_DRAW_BLOCK = 32_768  # samples, a multiple of 16; 30 s of dither take 4.9 ms in blocks of 4096, 2.9 of 32768, 6.6 whole
# OpenBLAS starts threads at 64^3 multiplications, and when cores are busy the wait for them costs far more than they
# save. On 2 cores with two other processes, 11 s took 296 ms in products of 128 frames and 23 in products of 4.
_FRAMES_PER_PRODUCT = 4  # 4 x 257 x 128 multiplications


def log_mel(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """Log-mel features of one piece of audio, normalised over the piece.

    samples: (n,), finite, 16 kHz, mono, -1..1; neither clipped nor changed. NaN or infinity would spoil every frame:
    the caller refuses them. Returns float32 (128, n // 160): 10 ms a frame, each bin with mean 0, standard deviation 1.

    Frame i is centred on sample 160 i; before the audio and after it there are zeros. The reference computes one frame
    more and masks it; here it is left out. With fewer than 2 frames there is no standard deviation, and the reference
    returns NaN. Here fewer than 160 samples give an empty (128, 0) array, and 160 to 319 one frame of zeros, as for a
    bin that equals its own mean.
    """
    samples = np.asarray(samples, np.float32)
    n_frames = len(samples) // HOP_LENGTH
    if n_frames == 0:
        return np.zeros((N_MELS, 0), np.float32)

    dithered = samples + np.float32(DITHER) * _normal(len(samples))
    emphasised = np.concatenate([dithered[:1], dithered[1:] - np.float32(PREEMPHASIS) * dithered[:-1]])
    features: NDArray[np.float32] = np.log(_mel_power(emphasised, n_frames) + np.float32(LOG_GUARD))
    features -= features.mean(axis=1, keepdims=True)
    std = np.sqrt(np.square(features).sum(axis=1, keepdims=True) / np.float32(max(n_frames - 1, 1)))
    features /= std + np.float32(STD_GUARD)
    return features


def _normal(n: int) -> NDArray[np.float32]:
    """The values of `torch.randn(n, generator=torch.Generator().manual_seed(n))` on the CPU, n >= 16: float32 (n,).

    Source: `normal_fill` in torch's ATen/native/cpu/DistributionTemplates.h. It turns each 16 uniform numbers into 16
    normal ones, and covers what is left over by drawing the last 16 values anew.
    """
    random = np.random.RandomState(n)  # seeds its Mersenne Twister as torch does; its stream never changes (NEP 19)
    normal = np.empty(n, np.float32)
    n_whole = n - n % 16
    for start in range(0, n_whole, _DRAW_BLOCK):
        block = normal[start : min(start + _DRAW_BLOCK, n_whole)]
        block[:] = _box_muller(_uniform(random, len(block)))
    if n_whole < n:
        _uniform(random, n - n_whole)  # torch draws these too before it replaces them
        normal[-16:] = _box_muller(_uniform(random, 16))
    return normal


def _uniform(random: np.random.RandomState, n: int) -> NDArray[np.float32]:
    """torch's `uniform_real_distribution<float>`: the low 24 bits of each draw, as float32 (n,) in 0 <= u < 1."""
    draws = random.randint(0, 2**32, n, dtype=np.uint32)
    return (draws & np.uint32(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """Uniform (16 k,) -> normal (16 k,): in each block of 16, the first 8 make the radii and the last 8 the angles."""
    pairs = uniform.reshape(-1, 2, 8)
    radius = np.sqrt(np.float32(-2) * np.log(np.float32(1) - pairs[:, 0]))
    angle = np.float32(2 * np.pi) * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)


def _mel_power(samples: NDArray[np.float32], n_frames: int) -> NDArray[np.float32]:
    """Energy per mel bin and frame: float32 (128, n_frames). Frame i is the window around sample 160 i."""
    # The reference centres its window in 512 samples. Where in them it lies changes only phases, so here it is first.
    padded = np.pad(samples, WIN_LENGTH // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, WIN_LENGTH)[::HOP_LENGTH][:n_frames]
    filterbank = mel_filterbank()
    windowed = np.zeros((_FRAME_BLOCK, N_FFT), np.float32)
    mel = np.empty((N_MELS, n_frames), np.float32)
    for start in range(0, n_frames, _FRAME_BLOCK):
        block = frames[start : start + _FRAME_BLOCK]
        np.multiply(block, _WINDOW, out=windowed[: len(block), :WIN_LENGTH])
        spectrum = np.fft.rfft(windowed)  # float64 with NumPy 1: 1.8 ms for 11 s instead of 1.5
        power = (np.square(spectrum.real) + np.square(spectrum.imag)).astype(np.float32, copy=False)
        products = np.matmul(power.reshape(-1, _FRAMES_PER_PRODUCT, power.shape[1]), filterbank.T)
        mel[:, start : start + _FRAME_BLOCK] = products.reshape(-1, N_MELS)[: len(block)].T
    return mel


@cache
def mel_filterbank() -> NDArray[np.float32]:
    """The weights (128, 257) from FFT bin powers to mel bins: `librosa.filters.mel(sr=16000, n_fft=512, n_mels=128)`.

    Triangles evenly spaced on the Slaney mel scale, each of area 1 over frequency in Hz ("Slaney norm"). Read-only.
    """
    bins = np.arange(N_FFT // 2 + 1) * (SAMPLE_RATE / N_FFT)
    # The scale (Auditory Toolbox, 1998): 200/3 Hz a mel up to 1000 Hz, above it 27 mels for each factor of 6.4.
    hz_per_mel, mels_per_neper = 200.0 / 3.0, 27.0 / np.log(6.4)
    knee = 1000.0 / hz_per_mel  # mels
    mels = np.linspace(0.0, knee + np.log(SAMPLE_RATE / 2 / 1000.0) * mels_per_neper, N_MELS + 2)
    corners = np.where(mels < knee, mels * hz_per_mel, 1000.0 * np.exp((mels - knee) / mels_per_neper))
    low, centre, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    triangles = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    # float32 before the area is applied, as librosa and transformers do: equal to theirs to the last bit
    filterbank = (triangles.astype(np.float32) * (2.0 / (high - low))).astype(np.float32)
    filterbank.flags.writeable = False
    return filterbank
