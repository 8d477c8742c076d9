"""The PyTorch loop through torch.compile, in blocks of steps: compiled whole, thousands of steps never finish."""

import torch

import peer_torch_loop

NAME = "torch-compile"
DTYPES = ("f32", "bf16")
PYTHON_LOOP = True
BLOCK = 16

block = torch.compile(peer_torch_loop.scan, dynamic=False)


def blocks(x, a, b, c):
    h = torch.zeros_like(x[:, 0])
    out = []
    # Two shapes to compile: a whole block, and the rest.
    for parts in zip(*(v.split(BLOCK, dim=1) for v in (x, a, b, c))):
        y, h = block(*parts, h)
        out.append(y)
    return torch.cat(out, dim=1)


to_numpy = peer_torch_loop.to_numpy


def prepare(data, dtype, direction):
    torch._dynamo.reset()
    return peer_torch_loop.prepare(data, dtype, direction, blocks)
