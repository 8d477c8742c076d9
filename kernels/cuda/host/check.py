"""Checks the kernels against a float64 loop, on the host through the emulator or on a GPU through the driver.

    python3 check.py emulator libemulator.so ARCH
    python3 check.py device scan.cubin ARCH

Every case draws fresh inputs, poisons every output with NaN, runs march and chunked with several worker counts, and
asks for the same bits from all of them.
"""

import ctypes, itertools, sys, os
import numpy as np
from launch import (FULL_H, PACKED, REVERSE, SEQUENTIAL, TYPES, Backward, Forward, Module, align, geometry, lanes,
                    saved_rows, tuning)

TOLERANCE = {"f32": 2e-6, "f16": 8e-4, "bf16": 6e-3}


class Emulator:
    def __init__(self, path):
        self.lib = ctypes.CDLL(path)

    def upload(self, array):
        return array

    def download(self, array):
        return array

    def address(self, array):
        return array.ctypes.data

    def launch(self, entry, params, grid, threads, shared):
        if self.lib.emulate(entry.encode(), ctypes.byref(params), grid, threads, ctypes.c_size_t(shared)):
            raise KeyError(entry)

    def sync(self):
        pass


class Device(Module):
    def __init__(self, path):
        import torch

        self.torch = torch
        torch.zeros(1, device="cuda")
        super().__init__(path)

    def upload(self, array):
        return self.torch.from_numpy(np.ascontiguousarray(array).view(np.uint8)).cuda()

    def download(self, tensor):
        return tensor.cpu().numpy()

    def address(self, tensor):
        return tensor.data_ptr()

    def launch(self, entry, params, grid, threads, shared):
        super().launch(entry, params, grid, threads, shared, self.torch.cuda.current_stream().cuda_stream)

    def sync(self):
        self.torch.cuda.synchronize()


def to_bits(values, kind):
    v = np.asarray(values, np.float32)
    if kind == "f32":
        return v
    if kind == "f16":
        return v.astype(np.float16)
    u = v.view(np.uint32)
    return ((u + 0x7FFF + ((u >> 16) & 1)) >> 16).astype(np.uint16)


def from_bits(raw, kind):
    raw = raw.reshape(-1).view(np.uint8)
    if kind == "bf16":
        return (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return raw.view({"f32": np.float32, "f16": np.float16}[kind]).astype(np.float32)


def spans(case):
    if case["cu"] is not None:
        return [(0, case["cu"][i], case["cu"][i + 1]) for i in range(len(case["cu"]) - 1)]
    return [(i, 0, case["L"]) for i in range(case["B"])]


def reference(case, v):
    """The plain loop in float64, sequence by sequence."""
    B, L, D = case["B"], case["L"], case["D"]
    out = {n: np.zeros((B, L, D)) for n in "y h dx da db dc".split()}
    seqs = spans(case)
    out["ht"] = np.zeros((len(seqs), D))
    out["dh0"] = np.zeros((len(seqs), D))
    one = np.ones((B, L, D))
    x, a, dy = v["x"], v["a"], v["dy"]
    b, c = v.get("b", one), v.get("c", one)
    for i, (r, lo, hi) in enumerate(seqs):
        order = list(range(lo, hi))
        if case["reverse"]:
            order.reverse()
        h = v["h0"][i].copy() if "h0" in v else np.zeros(D)
        before = {}
        for t in order:
            before[t] = h
            h = a[r, t] * h + b[r, t] * x[r, t]
            out["h"][r, t] = h
            out["y"][r, t] = c[r, t] * h
        out["ht"][i] = h
        q = v["dht"][i].copy() if "dht" in v else np.zeros(D)
        for t in reversed(order):
            g = c[r, t] * dy[r, t] + q
            out["dx"][r, t] = b[r, t] * g
            out["db"][r, t] = x[r, t] * g
            out["dc"][r, t] = dy[r, t] * out["h"][r, t]
            out["da"][r, t] = before[t] * g
            q = a[r, t] * g
        out["dh0"][i] = q
    return out


class Runner:
    def __init__(self, backend, arch):
        self.backend, self.rows = backend, tuning(arch)

    def run(self, case, kind, out_kind, algorithm, workers, bits, misalign=0):
        """All outputs of one forward and one backward, as raw bytes."""
        be, row = self.backend, self.rows[kind]
        B, L, D = case["B"], case["L"], case["D"]
        seqs = spans(case)
        N = len(seqs)
        size, out_size = TYPES[kind][1], TYPES[out_kind][1]
        keep = {}

        def place(name, array):
            raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
            padded = np.concatenate([np.zeros(misalign, np.uint8), raw, np.full(64, 0xA5, np.uint8)])
            keep[name] = be.upload(padded)
            assert be.address(keep[name]) % 16 == 0 or misalign == 0
            return be.address(keep[name]) + misalign

        def poison(name, count, elem):
            return place(name, np.full(count * elem + 0, 0xFF, np.uint8))

        def fetch(name, count, elem):
            raw = be.download(keep[name])
            assert (raw[misalign + count * elem:] == 0xA5).all(), f"{name} written past its end"
            return raw[misalign:misalign + count * elem].copy()

        packed = case["cu"] is not None
        flags = REVERSE * case["reverse"] | PACKED * packed | SEQUENTIAL * (algorithm == "sequential")
        full = case["policy"] == "full"
        flags |= FULL_H * full
        kept = B * L if full else saved_rows(row, B, L, N, packed)
        common = dict(batch=B, len=L, channels=D, sequences=N, flags=flags, out_type=TYPES[out_kind][0])
        ins = {n: place(n, bits[n]) for n in ("x", "a", "b", "c", "h0", "dht", "dy") if n in bits}
        if packed:
            keep["cu"] = be.upload(np.asarray(case["cu"], np.int64).view(np.uint8))
            common["cu"] = be.address(keep["cu"])
        outs = {"y": poison("y", B * L * D, out_size), "ht": poison("ht", N * D, 4)}
        outs["saved"] = poison("saved", kept * D, 4)
        access = min(align(ins[n], [D * size]) for n in "xabc" if n in ins)

        def launch(op, params):
            # The plain entries want V channels aligned as one.
            v = lanes(row, op, "chunked" if algorithm == "chunked" else "march")
            wide = kind == out_kind and params.access >= v * size and params.out_access >= v * out_size
            how = geometry(row, op, algorithm, D, L, N, wide=wide, packed=packed, workers=workers)
            params.stages, params.workers = how.stages, how.workers
            if how.work_bytes:
                keep["work"] = be.upload(np.full(how.work_bytes, 0xFF, np.uint8))
                params.work = be.address(keep["work"])
            if how.grid and D and N:
                be.launch(how.entry, params, how.grid, how.threads, how.shared)
                be.sync()

        f = Forward(**common, access=access, out_access=align(outs["y"], [D * out_size]), y=outs["y"], ht=outs["ht"],
                    saved=outs["saved"], **{n: ins[n] for n in ("x", "a", "b", "c", "h0") if n in ins})
        if case["policy"] == "nothing":
            f.y, f.c = 0, 0
        launch("forward", f)
        grads = {n: poison(n, B * L * D, size) for n in case["grads"] if n[1:] in ins and n != "dh0"}
        grads["dh0"] = poison("dh0", N * D, 4)
        access = min([access] + [align(grads[n], [D * size]) for n in grads if n != "dh0"])
        g = Backward(**common, access=access, out_access=align(ins["dy"], [D * out_size]), saved=outs["saved"],
                     **{n: ins[n] for n in ("x", "a", "b", "c", "h0", "dy", "dht") if n in ins}, **grads)
        launch("backward", g)
        fetch("saved", kept * D, 4)
        result = {"ht": fetch("ht", N * D, 4), "dh0": fetch("dh0", N * D, 4)}
        if case["policy"] != "nothing":
            result["y"] = fetch("y", B * L * D, out_size)
        if full:
            result["h"] = fetch("saved", B * L * D, 4)
        for n in grads:
            if n != "dh0":
                result[n] = fetch(n, B * L * D, size)
        return result

    def case(self, rng, kind, out_kind, case, workers=(1, 2, 5, 20), misalign=0):
        B, L, D = case["B"], case["L"], case["D"]
        N = len(spans(case))
        draw = {"x": rng.standard_normal((B, L, D)), "a": rng.uniform(case.get("low", 0.6), 1.0, (B, L, D)),
                "b": rng.standard_normal((B, L, D)), "c": rng.standard_normal((B, L, D)),
                "dy": rng.standard_normal((B, L, D)), "h0": rng.standard_normal((N, D)),
                "dht": rng.standard_normal((N, D))}
        draw = {n: d for n, d in draw.items() if n not in case["absent"]}
        draw["a"][rng.uniform(size=draw["a"].shape) < 0.01] = 0.0
        kinds = {n: "f32" if n in ("h0", "dht") else out_kind if n == "dy" else kind for n in draw}
        bits = {n: to_bits(d, kinds[n]) for n, d in draw.items()}
        exact = {n: from_bits(b, kinds[n]).astype(np.float64).reshape(b.shape) for n, b in bits.items()}
        want = reference(case, exact)
        runs = {"march": self.run(case, kind, out_kind, "march", 1, bits, misalign)}
        for w in workers:
            runs[f"chunked/{w}"] = self.run(case, kind, out_kind, "chunked", w, bits, misalign)
        runs["sequential"] = self.run(case, kind, out_kind, "sequential", 1, bits, misalign)
        slack = case["cu"] is not None and case["cu"][-1] < L
        bad = []
        for name, run in runs.items():
            for n, raw in run.items():
                k = "f32" if n in ("ht", "dh0", "h") else out_kind if n == "y" else kind
                got = from_bits(raw, k).astype(np.float64).reshape(want[n].shape)
                ref = want[n]
                if slack and n not in ("ht", "dh0"):
                    if not np.isnan(got[:, case["cu"][-1]:]).all():
                        bad.append(f"{name} {n} wrote into the slack")
                    got, ref = got[:, :case["cu"][-1]], ref[:, :case["cu"][-1]]
                error = np.linalg.norm(got - ref) / max(np.linalg.norm(ref), 1e-30) if got.size else 0.0
                if not error <= TOLERANCE[k]:
                    bad.append(f"{name} {n} error {error:.2e}")
                if name.startswith("chunked") and not np.array_equal(raw, runs["march"][n]):
                    bad.append(f"{name} {n} differs from march in {np.mean(raw != runs['march'][n]):.3f} of its bytes")
        return bad


def cases():
    base = dict(B=1, L=100, D=64, reverse=False, cu=None, absent=(), policy="chunks",
                grads=("dx", "da", "db", "dc"))
    def case(**changes):
        return {**base, **changes}
    for L in (0, 1, 3, 15, 16, 17, 33, 127, 128, 129, 256, 300, 1000, 7000):
        yield case(L=L)
    for D in (1, 2, 3, 31, 33, 63, 65, 66, 100, 130):
        yield case(D=D, L=150, B=2)
    yield case(B=3, L=700, D=40, reverse=True)
    yield case(B=2, L=700, D=40, absent=("b",))
    yield case(B=2, L=700, D=40, absent=("c",))
    yield case(B=2, L=300, D=40, absent=("b", "c", "h0", "dht"))
    yield case(B=2, L=700, D=40, absent=("h0",), reverse=True)
    for policy, reverse in itertools.product(("nothing", "full"), (False, True)):
        yield case(B=2, L=513, D=34, policy=policy, reverse=reverse)
    for grads in (("dx",), ("da",), ("db",), ("dc",), ("dx", "da"), ()):
        yield case(L=180, D=32, B=2, grads=grads)
    for cu, reverse, policy in itertools.product(
            ([0, 0, 5, 5, 300, 301, 557, 557], [0, 128, 256, 600], [0, 10, 11, 12, 13, 14, 600], [0, 0], [0]),
            (False, True), ("chunks", "nothing", "full")):
        yield case(L=600, D=33, cu=cu, reverse=reverse, policy=policy)


def main():
    where, path, arch = sys.argv[1], sys.argv[2], int(sys.argv[3])
    fraction = float(sys.argv[4]) if len(sys.argv) > 4 else 1.0
    runner = Runner(Emulator(path) if where == "emulator" else Device(path), arch)
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    print("seed", seed)
    failed = count = 0
    pairs = [("f32", "f32"), ("bf16", "bf16"), ("f16", "f16"), ("f16", "f32"), ("f32", "bf16"), ("bf16", "f16")]
    for (kind, out), case in itertools.product(pairs, list(cases())):
        if rng.uniform() > fraction:
            continue
        misalign = int(rng.choice([0, 0, 4, 8] if case["D"] % 2 == 0 else [0, 4]))
        try:
            bad = runner.case(rng, kind, out, case, misalign=misalign)
        except Exception as e:
            bad = [repr(e)]
        count += 1
        if bad:
            failed += 1
            print("FAIL", kind, out, {k: v for k, v in case.items()}, "misalign", misalign, bad[:4], len(bad), flush=True)
            if failed > 30 or any("CUDA" in b for b in bad):
                break
    print(f"{count} cases, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
