"""Measures what a Python user would reach for on a GPU, beside our kernels and a plain copy, and writes results.json.

    python3 benches/peers/gpu_peers.py --out results.json [--seconds 0.5] [--minutes 8] [--only cuda-ptx,jax]

Every contestant that is there runs in this process, on the same tensors, under the same clock; nothing is installed.
Before it is timed it is checked against a float64 loop on a small problem. `forward` keeps nothing for a backward;
`backward` begins after one forward outside the clock; `train` is both. Our kernels come from kernels/ptx through the
CUDA driver (kernels/cuda/host/launch.py) and are launched as plans would: launches.json is written and held by a test
of ssm-cuda.

Clock: launches are enqueued until a sample lasts 5 ms, then waited for. Each sample is paired with one of the copy, in
turn; `fraction` is the median of the paired ratios. Inputs rotate where a cache would hold them. What takes less than
100 µs is captured in a graph where it can be, so that Python's own time is not what is measured.
"""

import argparse
import datetime
import gc
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import torch

import gpu_contestants as contestants

# The shapes of docs/kernels-cuda.md: rows that fill the chip, rows that do not, the longest, and a launch.
CASES = [
    *[((8, 2048, 4096), dtype, variant) for dtype in ("f32", "bf16", "f16") for variant in ("plain", "h-only")],
    *[((1, 1 << 20, 64), dtype, variant) for dtype in ("f32", "bf16") for variant in ("plain", "h-only")],
    *[((1, 65536, 1024), dtype, variant) for dtype in ("f32", "bf16") for variant in ("plain", "h-only")],
    ((8, 65536, 1536), "f32", "h-only"),
    ((4, 2048, 16), "f16", "plain"),
    ((4, 2048, 16), "f16", "h-only"),
]
DIRECTIONS = ("forward", "backward", "train")
TENSORS = {"plain": {"forward": 5, "backward": 9, "train": 14}, "h-only": {"forward": 3, "backward": 5, "train": 8}}
TOLERANCE = {"f32": 1e-4, "f16": 2e-2, "bf16": 1e-1}
CACHE = 64 << 20
SAMPLE_NS = 5_000_000
GRAPH_NS = 100_000


def timed(calls, launches, wait):
    """Nanoseconds a launch."""
    torch.cuda.synchronize()
    start = time.perf_counter_ns()
    for i in range(launches):
        last = calls[i % len(calls)]()
    wait(last)
    torch.cuda.synchronize()
    return (time.perf_counter_ns() - start) / launches


def captured(calls):
    """One replay that makes every call; none where they cannot be captured."""
    stream = torch.cuda.Stream()
    try:
        with torch.cuda.stream(stream):
            for call in calls:
                call()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for call in calls:
                call()
        graph.replay()
        torch.cuda.synchronize()
        return graph
    except Exception:
        torch.cuda.synchronize()
        return None


class Sampler:
    """Calls in turn as often as fill a sample; short ones from a graph of many where they can be captured."""

    def __init__(self, calls, wait, capturable):
        for call in calls:
            wait(call())
        # A graph knows addresses only: what the calls hold has to stay.
        self.kept = self.calls = calls
        self.wait, self.each = wait, 1
        self.once = min(timed(calls, len(calls), wait) for _ in range(2))
        if capturable and self.once < GRAPH_NS:
            many = calls * math.ceil(16 / len(calls))
            graph = captured(many)
            if graph is not None:
                self.calls, self.wait, self.each = [graph.replay], lambda _: None, len(many)
                self.once = timed(self.calls, 3, self.wait)
        self.launches = max(1, min(1000, math.ceil(SAMPLE_NS / self.once)))

    def sample(self):
        """Nanoseconds a call."""
        return timed(self.calls, self.launches, self.wait) / self.each


def copier(size):
    """The device's own copy that moves as many bytes, on rotating buffers."""
    half = max(1, size // 2)
    sets = min(16, max(1, math.ceil(2 * CACHE / size)))
    room = lambda: torch.empty(half, dtype=torch.uint8, device="cuda").fill_(1)
    return [lambda s=s, d=d: d.copy_(s) for s, d in ((room(), room()) for _ in range(sets))]


def measure(ours, copy, seconds):
    """Paired samples of both; who begins alternates."""
    pair = ours.once * ours.launches + copy.once * copy.launches
    samples = {ours: [], copy: []}
    for i in range(max(3, min(101, int(seconds * 1e9 / pair)))):
        for sampler in (ours, copy) if i % 2 == 0 else (copy, ours):
            samples[sampler].append(sampler.sample())
    return samples[ours], samples[copy]


def row(name, algorithm, case, direction, samples, copied, launches):
    (shape, dtype, variant), device = case, torch.cuda.get_device_name()
    size = TENSORS[variant][direction] * math.prod(shape) * contestants.SIZES[dtype]
    ratios = [c / k for c, k in zip(copied, samples)]
    tenths = lambda v: (q := statistics.quantiles(v, n=10, method="inclusive"))[:1] + q[-1:]
    (low, high), (least, most), median = tenths(samples), tenths(ratios), statistics.median(samples)
    return {
        "backend": name, "device": device, "op": "gated_scan", "direction": direction, "dtype": dtype,
        "shape": list(shape), "variant": variant, "algorithm": algorithm, "median_ns": median, "p10_ns": low,
        "p90_ns": high, "bytes": size, "gb_per_s": size / median,
        "reference_gb_per_s": size / statistics.median(copied),
        "fraction": statistics.median(ratios), "fraction_p10": least, "fraction_p90": most,
        "reference": "the device's copy of half as many bytes", "samples": len(samples), "launches": launches,
        "noisy": (high - low) / median > 0.2,
    }


def oracle(data, variant):
    """y and da of a small problem in float64."""
    x, a, b, c, dy = (data[n].double() for n in ("x", "a", "b", "c", "dy"))
    if variant == "h-only":
        b, c = torch.ones_like(b), torch.ones_like(c)
    h, da, g = torch.zeros_like(x), torch.zeros_like(x), torch.zeros_like(x[:, 0])
    for t in range(x.shape[1]):
        h[:, t] = a[:, t] * (h[:, t - 1] if t else 0) + b[:, t] * x[:, t]
    for t in reversed(range(x.shape[1])):
        g = c[:, t] * dy[:, t] + (a[:, t + 1] * g if t + 1 < x.shape[1] else 0)
        da[:, t] = g * (h[:, t - 1] if t else 0)
    return c * h, da


def check(contestant, case, direction):
    """Length of a small problem of the case's kind, and the error of y or da on it; raises where it is large."""
    _, dtype, variant = case
    length = 300 if contestant.any_length else 256
    data = contestants.draw((2, length, 64), dtype, seed=1)
    output, want = list(zip(("y", "da"), oracle(data, variant)))[direction == "train"]
    got = contestant.outputs(contestant.prepare(data, direction, variant)())[output]
    torch.cuda.synchronize()
    error = float((got.double() - want).norm() / want.norm())
    if not error < TOLERANCE[dtype]:
        raise contestants.Unfit(f"{output} is off by {error:.1e}: it does not compute the scan")
    return length, output, error


def smi(query):
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip().replace("\n", "; ")
    except (OSError, subprocess.CalledProcessError):
        return None


def git(*arguments):
    try:
        command = ["git", "-C", str(contestants.ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def host():
    now, cores, load = time.time(), len(os.sched_getaffinity(0)), os.getloadavg()[0]
    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    changes = git("status", "--porcelain", "--untracked-files=no")
    commit = os.environ.get("BENCH_COMMIT") or git("rev-parse", "HEAD")
    return {
        "cpu": names[0] if names else "unknown", "cores": cores, "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), "os": platform.platform(),
        "gpu": smi("name"), "driver": smi("driver_version"), "gpu_state": smi(STATE), "commit": commit,
        "dirty": None if changes is None else bool(changes), "unix_time": int(now),
        "date": datetime.datetime.fromtimestamp(now, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), "load": load,
        "busy": load > cores / 4, "allocator": "PyTorch", "rustc": "none", "flags": contestants.versions(),
        "cpu_mhz": None, "power": None, "cpu_celsius": None, "seed": 0, "quick": False, "after": None,
    }


STATE = "clocks.sm,clocks.mem,temperature.gpu,power.limit"


class Run:
    def __init__(self, args):
        self.args = args
        parts = ("results", "absent", "skipped", "errors", "curves")
        self.file = {"schema": 2, "host": host(), **{part: [] for part in parts}}
        if args.into:
            self.file = json.loads(args.into.read_text())
        self.checked = {}
        self.present = []
        for contestant in contestants.ALL:
            if args.only and contestant.name not in args.only.split(","):
                continue
            try:
                contestant.load()
                self.present.append(contestant)
            except Exception as why:
                self.file["absent"].append({"backend": contestant.name, "why": f"{type(why).__name__}: {why}"[:300]})
                print(f"absent: {contestant.name}: {why}", flush=True)

        # Not before: one of them compiles while it is imported.
        self.start = time.monotonic()

    def skip(self, contestant, case, direction, why):
        (b, l, d), dtype, variant = case
        name = f"gated_scan/{direction}/{dtype}/{b}x{l}x{d}/{variant}"
        self.file["skipped"].append({"backend": contestant.name, "case": name, "why": str(why)[:300]})
        print(f"skipped: {contestant.name} {name}: {str(why)[:200]}", flush=True)

    def late(self):
        return self.args.minutes and time.monotonic() - self.start > 60 * self.args.minutes

    def check(self, contestant, case, direction):
        """Once for each type and variant, forward and with gradients; what failed stays out, and is told the same."""
        direction = "forward" if direction == "forward" else "train"
        key = (contestant.name, *case[1:], direction)
        if contestant.checkable and key not in self.checked:
            try:
                length, output, error = check(contestant, case, direction)
            except Exception as why:
                # Without its traceback, which would hold tensors.
                self.checked[key] = contestants.Unfit(f"{type(why).__name__}: {why}")
                raise
            self.checked[key] = None
            self.file["errors"].append({
                "backend": contestant.name, "device": torch.cuda.get_device_name(), "op": "gated_scan",
                "gates": "uniform", "dtype": case[1], "algorithm": "peer", "len": length, "output": output,
                "error": error,
            })
        elif self.checked.get(key):
            raise self.checked[key]

    def one(self, contestant, case, direction, sets):
        _, dtype, variant = case
        if self.late():
            return self.skip(contestant, case, direction, "the time was up")
        try:
            contestant.fits(case)
            self.check(contestant, case, direction)
            ours = Sampler([contestant.prepare(data, direction, variant) for data in sets], contestant.wait,
                           contestant.capturable)
            size = TENSORS[variant][direction] * math.prod(case[0]) * contestants.SIZES[dtype]
            samples, copied = measure(ours, Sampler(copier(size), lambda _: None, True), self.args.seconds)
        except Exception as why:
            self.skip(contestant, case, direction, f"{type(why).__name__}: {why}")
            try:
                return torch.cuda.synchronize()
            except RuntimeError as lost:
                self.write()
                raise SystemExit(f"{contestant.name} lost the device: {lost}") from None
        algorithm = contestant.algorithm(case, direction)
        done = row(contestant.name, algorithm, case, direction, samples, copied, ours.launches * ours.each)
        self.file["results"].append(done)
        print(f"{case} {direction:8} {contestant.name:24} {done['median_ns'] / 1e6:9.4f} ms  "
              f"{done['fraction']:.3f} of the copy{'  noisy' if done['noisy'] else ''}", flush=True)

    def all(self):
        # What compiles for long comes after everything else.
        for slow in (False, True):
            for case in CASES:
                shape, dtype, variant = case
                name = f"{dtype}/{'x'.join(map(str, shape))}/{variant}"
                these = [c for c in self.present if c.slow == slow]
                if self.args.filter not in name or not these:
                    continue
                size = TENSORS[variant]["forward"] * math.prod(shape) * contestants.SIZES[dtype]
                count = math.ceil(2 * CACHE / size)
                sets = [contestants.draw(shape, dtype, seed) for seed in range(min(16, max(1, count)))]
                for contestant in these:
                    for direction in DIRECTIONS:
                        if direction in contestant.directions:
                            self.one(contestant, case, direction, sets)
                            gc.collect()
                            torch.cuda.empty_cache()
                del sets
                self.write()
        self.file["host"]["after"] = {"cpu_mhz": None, "cpu_celsius": None, "gpu_state": smi(STATE)}
        self.write()

    def write(self):
        self.args.out.parent.mkdir(parents=True, exist_ok=True)
        self.args.out.write_text(json.dumps(self.file, indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--into", type=Path, help="a results.json whose rows are kept and added to")
    parser.add_argument("--only", default="", help="these contestants, by name")
    parser.add_argument("--filter", default="", help="cases whose type/shape/variant contains this")
    parser.add_argument("--seconds", type=float, default=1.0, help="of sampling a row")
    parser.add_argument("--minutes", type=float, default=0, help="begin no row after so long")
    run = Run(parser.parse_args())
    run.all()
    ours = [r for r in run.file["results"] if r["backend"] == "cuda-ptx"]
    wanted = any(c.name == "cuda-ptx" for c in run.present)
    sys.exit("our kernels have no row" if wanted and not ours else 0)


if __name__ == "__main__":
    main()
