"""Times forward and backward of the gated SSM layer in PyTorch on the CPU, its scan a loop over time.

    python3 benches/peers/layer.py --shape 8,1024,256 --multiplier 4 --runs 3

Prints the seconds of each step, and of its matrix products alone, as one line of JSON. The layer is checked against its
golden vector first: y, and the gradients of the input and of every parameter. Installs PyTorch alone into target/peers-torch.
"""

import argparse
import json
import struct
import sys
import time
from pathlib import Path

import peers

GOLDEN = Path(__file__).resolve().parents[2] / "crates/ssm-testkit/golden/gated_ssm_layer.safetensors"
PROJECTIONS = ("a", "b", "d", "c_a", "c_b")


def forward(p, x):
    import torch
    from peer_torch_loop import loop
    from torch.nn.functional import linear, silu

    n = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-5) * p["norm_weight"]
    a, u, d, c_a, c_b = (linear(n, p[f"{name}_weight"]) for name in PROJECTIONS)
    h = loop(u, torch.sigmoid(a + p["a_bias"]), torch.sigmoid(d), silu(c_a) * c_b)
    return linear(h, p["out_weight"], p["out_bias"]) + x


def golden():
    """The tensors of the golden vector, each by its name."""
    import numpy as np

    raw = GOLDEN.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    types = {"F32": np.float32, "F64": np.float64}

    def read(entry):
        begin, end = (8 + size + at for at in entry["data_offsets"])
        return np.frombuffer(raw[begin:end], types[entry["dtype"]]).reshape(entry["shape"])

    return {name: read(entry) for name, entry in header.items()}


def check():
    import torch

    file = golden()
    given = {k: torch.tensor(v) for k, v in file.items() if f"d{k}" in file and k != "y"}
    leaves = {k: v.requires_grad_() for k, v in given.items()}
    y = forward(leaves, leaves["x"])
    gradients = torch.autograd.grad(y, list(leaves.values()), torch.tensor(file["dy"]))
    for name, got in [("y", y), *((f"d{k}", g) for k, g in zip(leaves, gradients))]:
        want = torch.tensor(file[name])
        error = ((got.double() - want).norm() / want.norm()).item()
        if not error < 1e-5:
            raise SystemExit(f"{name} is off by {error:.1e}: this is not the layer")


def draw(hidden, state):
    import torch

    uniform = lambda *shape: (torch.rand(shape) * 2 - 1) / shape[-1] ** 0.5
    p = {f"{name}_weight": uniform(state, hidden) for name in PROJECTIONS}
    p |= {"out_weight": uniform(hidden, state), "out_bias": torch.zeros(hidden), "norm_weight": torch.ones(hidden)}
    # Memories of 2 to 1000 steps, evenly in the logarithm.
    p["a_bias"] = torch.log(torch.logspace(0.301, 3, state) - 1)
    return {k: v.requires_grad_() for k, v in p.items()}


def products(rows, hidden, state):
    """The matrix products of a step and nothing else: six forward, two for each of them backward."""
    import torch

    narrow, wide, weight = torch.rand(rows, hidden), torch.rand(rows, state), torch.rand(hidden, state)

    def run():
        for _ in range(6):
            narrow @ weight, wide @ weight.T, narrow.T @ wide

    return run


def timed(runs, run):
    """Seconds of each run, after one that warms up."""
    seconds = []
    for _ in range(runs + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="8,1024,256", help="B,L,D")
    parser.add_argument("--multiplier", type=int, default=4, help="channels of the scan are D times this")
    parser.add_argument("--runs", type=int, default=3)
    args = parser.parse_args()
    peers.enter_environment(__file__, only=("numpy", "torch"))
    import torch

    check()
    batch, length, hidden = map(int, args.shape.split(","))
    p = draw(hidden, hidden * args.multiplier)
    x = (torch.rand(batch, length, hidden) * 2 - 1).requires_grad_()
    step = lambda: torch.autograd.grad(forward(p, x).square().mean(), [x, *p.values()])
    result = {"seconds": timed(args.runs, step), "threads": torch.get_num_threads(), "torch": torch.__version__}
    shape = batch * length, hidden, hidden * args.multiplier
    result["products"] = timed(args.runs, products(*shape))
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
