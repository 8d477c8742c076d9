"""jax.lax.associative_scan over pairs (gate, input), under jit."""

import jax
import jax.numpy as jnp
import numpy as np

NAME = "jax-associative-scan"
DTYPES = ("f32", "f16", "bf16")
PYTHON_LOOP = False
TYPES = {"f32": jnp.float32, "f16": jnp.float16, "bf16": jnp.bfloat16}


def scan(x, a, b, c):
    def combine(left, right):
        return right[0] * left[0], right[0] * left[1] + right[1]

    _, h = jax.lax.associative_scan(combine, (a, b * x), axis=1)
    return c * h


@jax.jit
def train(x, a, b, c, dy):
    y, pull = jax.vjp(scan, x, a, b, c)
    return y, pull(dy)


forward = jax.jit(scan)


def to_numpy(array):
    return np.asarray(array, np.float64)


def prepare(data, dtype, direction):
    x, a, b, c, dy = (jnp.asarray(data[k], TYPES[dtype]) for k in ("x", "a", "b", "c", "dy"))

    def run_forward():
        return {"y": forward(x, a, b, c).block_until_ready()}

    def run_train():
        y, (dx, da, db, dc) = jax.block_until_ready(train(x, a, b, c, dy))
        return {"y": y, "da": da}

    return run_forward if direction == "forward" else run_train
