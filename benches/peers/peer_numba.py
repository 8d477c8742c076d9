"""The loop written by hand in numba: parallel over rows and channel tiles, the innermost loop over channels."""

import numpy as np
from numba import get_num_threads, njit, prange

NAME = "numba-loop"
DTYPES = ("f32",)
PYTHON_LOOP = False


@njit(parallel=True, fastmath=True, cache=False)
def forward(x, a, b, c, y, width):
    batch, length, channels = x.shape
    tiles = (channels + width - 1) // width
    for job in prange(batch * tiles):
        i, low = job // tiles, job % tiles * width
        high = min(low + width, channels)
        h = np.zeros(width, np.float32)
        for t in range(length):
            for d in range(low, high):
                h[d - low] = a[i, t, d] * h[d - low] + b[i, t, d] * x[i, t, d]
                y[i, t, d] = c[i, t, d] * h[d - low]


@njit(parallel=True, fastmath=True, cache=False)
def forward_keep(x, a, b, c, y, h, width):
    batch, length, channels = x.shape
    tiles = (channels + width - 1) // width
    for job in prange(batch * tiles):
        i, low = job // tiles, job % tiles * width
        high = min(low + width, channels)
        state = np.zeros(width, np.float32)
        for t in range(length):
            for d in range(low, high):
                state[d - low] = a[i, t, d] * state[d - low] + b[i, t, d] * x[i, t, d]
                h[i, t, d] = state[d - low]
                y[i, t, d] = c[i, t, d] * state[d - low]


@njit(parallel=True, fastmath=True, cache=False)
def backward(x, a, b, c, h, dy, dx, da, db, dc, width):
    batch, length, channels = x.shape
    tiles = (channels + width - 1) // width
    for job in prange(batch * tiles):
        i, low = job // tiles, job % tiles * width
        high = min(low + width, channels)
        # a[t+1]·g[t+1], which the step before it adds.
        later = np.zeros(width, np.float32)
        for s in range(length):
            t = length - 1 - s
            for d in range(low, high):
                g = c[i, t, d] * dy[i, t, d] + later[d - low]
                later[d - low] = a[i, t, d] * g
                past = h[i, t - 1, d] if t > 0 else np.float32(0)
                dx[i, t, d] = b[i, t, d] * g
                db[i, t, d] = x[i, t, d] * g
                dc[i, t, d] = dy[i, t, d] * h[i, t, d]
                da[i, t, d] = past * g


def to_numpy(array):
    return np.asarray(array, np.float64)


def prepare(data, dtype, direction):
    del dtype
    x, a, b, c, dy = (data[k] for k in ("x", "a", "b", "c", "dy"))
    batch, _, channels = x.shape
    # As wide as possible while every thread has a tile.
    tiles = max(1, -(-get_num_threads() // batch))
    width = -(-channels // tiles)
    y = np.empty_like(x)

    def run_forward():
        forward(x, a, b, c, y, width)
        return {"y": y}

    if direction == "forward":
        return run_forward
    h, dx, da, db, dc = (np.empty_like(x) for _ in range(5))

    def run_train():
        forward_keep(x, a, b, c, y, h, width)
        backward(x, a, b, c, h, dy, dx, da, db, dc, width)
        return {"y": y, "da": da}

    return run_train
