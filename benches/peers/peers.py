"""Measures what a Python user would reach for instead, on this machine, as rows of results.json.

    python3 benches/peers/peers.py --out rows.json [--quick] [--only numba,jax] [--dtype f32,bf16]

Installs the packages of requirements.txt into a virtual environment of its own (target/peers) and runs in it; with
--installed it takes the packages of the Python that it was called with. With --against it prints how many times faster
the rows of results.json files are. Every peer computes y of the same gated scan, over (B, L, D) with D contiguous, and is
checked against a float64 loop on a small problem before it is measured. `train` is forward and backward with all
gradients. The file is written after every row: a run that is cut short keeps what it has.

Peers (one function each in peer_*.py): a loop over time in PyTorch, vectorised over batch and channels; the same loop
through torch.compile, in blocks of steps; jax.lax.associative_scan under jit; a loop written by hand in numba, parallel
over rows and channel tiles.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent.parent / "target"
SHAPES = [(4, 4096, 1024), (8, 2048, 512), (1, 262_144, 64), (1, 16_384, 1000), (64, 37, 300)]
SIZES = {"f32": 4, "f16": 2, "bf16": 2}
PEERS = ["numba", "jax", "torch_loop", "torch_compile"]


def enter_environment(script, only=()):
    """Goes on in a virtual environment, making it first where it is missing or out of date: with every package of
    requirements.txt, or with `only` these."""
    home = TARGET / "-".join(["peers", *(name for name in only if name != "numpy")])
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if Path(sys.prefix) == home:
        return
    lines = (HERE / "requirements.txt").read_text().splitlines()
    wanted = [line for line in lines if not only or line.split("==")[0] in only]
    stamp = home / "installed.txt"
    if not python.exists() or not stamp.exists() or stamp.read_text().splitlines() != wanted:
        print(f"installing the peers into {home}", file=sys.stderr)
        venv.create(home, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
        stamp.write_text("\n".join(wanted))
    sys.exit(subprocess.run([python, script, *sys.argv[1:]]).returncode)


def inputs(shape, seed):
    """x, a, b, c, dy in float32: gates in (0, 1), the others in (-1, 1)."""
    import numpy as np

    rng = np.random.default_rng(seed)
    draw = {name: rng.random(shape, dtype=np.float32) for name in ("x", "a", "b", "c", "dy")}
    return {name: v if name == "a" else 2 * v - 1 for name, v in draw.items()}


def oracle(data):
    """y and the gradient of a, in float64, step by step."""
    import numpy as np

    x, a, b, c, dy = (data[k].astype(np.float64) for k in ("x", "a", "b", "c", "dy"))
    h, da, g = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h[:, t] = a[:, t] * (h[:, t - 1] if t else 0) + b[:, t] * x[:, t]
    for t in reversed(range(x.shape[1])):
        g = c[:, t] * dy[:, t] + (a[:, t + 1] * g if t + 1 < x.shape[1] else 0)
        da[:, t] = g * (h[:, t - 1] if t else 0)
    return c * h, da


def check(peer, dtype):
    """That the peer computes the op: y, and da where it trains."""
    import numpy as np

    data = inputs((2, 70, 40), seed=1)
    y, da = oracle(data)
    tolerance = {"f32": 1e-4, "f16": 2e-2, "bf16": 1e-1}[dtype]
    for direction, want in (("forward", y), ("train", da)):
        run = peer.prepare(data, dtype, direction)
        got = peer.to_numpy(run()["y" if direction == "forward" else "da"]).astype(np.float64)
        error = np.linalg.norm(got - want) / np.linalg.norm(want)
        if not error < tolerance:
            raise SystemExit(f"{peer.NAME} {dtype} {direction}: error {error:.1e}, it does not compute the scan")


def measure(run, seconds):
    """Nanoseconds of each call, after one that warms up (and compiles)."""
    run()
    samples, end = [], time.perf_counter() + seconds
    while len(samples) < 3 or (time.perf_counter() < end and len(samples) < 101):
        start = time.perf_counter_ns()
        run()
        samples.append(time.perf_counter_ns() - start)
    return samples


def ratios(rows, results):
    """How many times longer each peer takes than ours of the same case, one line each."""
    key = lambda r: (r["op"], r["direction"], r["dtype"], tuple(r["shape"]), r["variant"])
    ours = {key(r): r for r in results if r["backend"] == "cpu"}
    for r in rows:
        if our := ours.get(key(r)):
            noisy = " (noisy)" if r["noisy"] or our["noisy"] else ""
            case = f"{r['backend']} {r['direction']} {r['dtype']} {'x'.join(map(str, r['shape']))}"
            yield (
                f"{case}: {r['median_ns'] / 1e6:.2f} ms, ours {our['median_ns'] / 1e6:.2f} ms,"
                f" {r['median_ns'] / our['median_ns']:.2f} times faster{noisy}"
            )


def row(peer, dtype, direction, shape, samples):
    tensors = 5 if direction == "forward" else 14
    size = tensors * shape[0] * shape[1] * shape[2] * SIZES[dtype]
    median = statistics.median(samples)
    cuts = statistics.quantiles(samples, n=10, method="inclusive")
    return {
        "backend": peer.NAME,
        "device": "cpu",
        "op": "gated_scan",
        "direction": direction,
        "dtype": dtype,
        "shape": list(shape),
        "variant": "plain",
        "algorithm": "peer",
        "median_ns": median,
        "p10_ns": cuts[0],
        "p90_ns": cuts[-1],
        "bytes": size,
        "gb_per_s": size / median,
        "reference_gb_per_s": None,
        "fraction": None,
        "samples": len(samples),
        "launches": 1,
        "noisy": (cuts[-1] - cuts[0]) / median > 0.2,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="f32 only, and no Python loop over more than 20,000 steps")
    parser.add_argument("--only", default=",".join(PEERS))
    parser.add_argument("--dtype", default=None)
    parser.add_argument("--installed", action="store_true", help="no environment of its own")
    parser.add_argument("--against", type=Path, nargs="+", help="results.json of this machine to compare with")
    parser.add_argument("--filter", default="", help="cases whose op/direction/dtype/shape/variant contains this")
    args = parser.parse_args()
    out = args.out.absolute()
    if not args.installed:
        enter_environment(__file__)
    sys.path.insert(0, str(HERE))
    dtypes = (args.dtype or ("f32" if args.quick else "f32,f16,bf16")).split(",")
    out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    for name in args.only.split(","):
        peer = importlib.import_module(f"peer_{name}")
        for dtype in (d for d in dtypes if d in peer.DTYPES):
            check(peer, dtype)
            for shape in SHAPES:
                case = "gated_scan/{}/" + f"{dtype}/{'x'.join(map(str, shape))}/plain"
                directions = [d for d in ("forward", "train") if args.filter in case.format(d)]
                if not directions:
                    continue
                # Left out by length, and said: a Python loop over 262,144 steps takes most of a minute a sample.
                if peer.PYTHON_LOOP and shape[1] > (20_000 if args.quick else 300_000):
                    print(f"{peer.NAME} {dtype} {shape}: left out, too many steps in Python", file=sys.stderr)
                    continue
                data = inputs(shape, time.time_ns() % 2**32)
                for direction in directions:
                    run = peer.prepare(data, dtype, direction)
                    samples = measure(run, 1.0 if args.quick else 4.0)
                    rows.append(row(peer, dtype, direction, shape, samples))
                    out.write_text(json.dumps(rows, indent=2) + "\n")
                    print(f"{peer.NAME} {dtype} {shape} {direction}: {rows[-1]['median_ns'] / 1e6:.2f} ms", file=sys.stderr)
    out.write_text(json.dumps(rows, indent=2) + "\n")
    if args.against:
        results = [r for file in args.against for r in json.loads(file.read_text())["results"]]
        print(*ratios(rows, results), sep="\n")


if __name__ == "__main__":
    main()
