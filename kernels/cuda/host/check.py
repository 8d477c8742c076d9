"""Checks the kernels against a float64 loop, on the host through the emulator or on a GPU through the driver.

    python3 check.py emulator libemulator.so ARCH
    python3 check.py device scan.cubin ARCH

Every case draws fresh inputs, poisons every output with NaN, runs march and chunked with several worker counts, and
asks for the same bits from all of them.
"""

import ctypes, itertools, re, sys, os
import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
REVERSE, PACKED, SEQUENTIAL, FULL_H = 1, 2, 4, 8
TYPES = {"f32": (0, 4, 2e-6), "f16": (1, 2, 8e-4), "bf16": (2, 2, 6e-3)}
u64, u32 = ctypes.c_uint64, ctypes.c_uint32


def block(name, longs, ints):
    fields = [(n, u64) for n in longs.split()] + [(n, u32) for n in ints.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


TAIL = "flags access out_access out_type workers stages"
Forward = block("Forward", "x a b c h0 y ht saved cu work batch len channels sequences", TAIL)
Backward = block("Backward", "x a b c h0 saved dy dht dx da db dc dh0 cu work batch len channels sequences", TAIL)
Step = block("Step", "x a b c y state batch len channels", "out_type pad")


def tuning(arch):
    names = "arch type SUB CHUNK CHUNKB SAVE STAGE VM VC VCB SF SB CF CB FOLD FOLDB".split()
    rows = {}
    for line in open(os.path.join(HERE, "..", "scan_tuning.h")):
        m = re.match(r"\s*ROW\((.*)\)", line)
        if m:
            row = dict(zip(names, [w.strip() for w in m[1].split(",")]))
            row = {k: (v if k == "type" else int(v)) for k, v in row.items()}
            if row["arch"] == arch:
                rows[row["type"]] = row
    return rows


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


class Device:
    def __init__(self, path):
        import torch

        self.torch = torch
        torch.zeros(1, device="cuda")
        self.cu = ctypes.CDLL("libcuda.so.1")
        self.module = ctypes.c_void_p()
        self.check(self.cu.cuModuleLoad(ctypes.byref(self.module), path.encode()))
        self.entries = {}

    def check(self, code):
        if code:
            raise RuntimeError(f"CUDA error {code}")

    def upload(self, array):
        return self.torch.from_numpy(np.ascontiguousarray(array).view(np.uint8)).cuda()

    def download(self, tensor):
        return tensor.cpu().numpy()

    def address(self, tensor):
        return tensor.data_ptr()

    def launch(self, entry, params, grid, threads, shared):
        if entry not in self.entries:
            f = ctypes.c_void_p()
            self.check(self.cu.cuModuleGetFunction(ctypes.byref(f), self.module, entry.encode()))
            self.check(self.cu.cuFuncSetAttribute(f, 8, 227 * 1024))
            self.entries[entry] = f
        args = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(params), ctypes.c_void_p))
        stream = ctypes.c_void_p(self.torch.cuda.current_stream().cuda_stream)
        self.check(self.cu.cuLaunchKernel(self.entries[entry], u32(grid), u32(1), u32(1), u32(threads), u32(1), u32(1),
                                          u32(shared), stream, args, None))

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


def align(address, sizes):
    a = 16
    while a > 2 and (address % a or any(s % a for s in sizes)):
        a //= 2
    return a


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

        suffix = "" if kind == out_kind else "_any"
        march = algorithm != "chunked"
        sub, save = row["SUB"], row["SAVE"]
        flags = REVERSE * case["reverse"] | PACKED * (case["cu"] is not None) | SEQUENTIAL * (algorithm == "sequential")
        full = case["policy"] == "full"
        flags |= FULL_H * full
        saved_rows = B * L if full else (L // save + N if case["cu"] is not None else B * -(-L // save))
        common = dict(batch=B, len=L, channels=D, sequences=N, flags=flags, workers=workers,
                      out_type=TYPES[out_kind][0])
        ins = {n: place(n, bits[n]) for n in ("x", "a", "b", "c", "h0", "dht", "dy") if n in bits}
        if case["cu"] is not None:
            keep["cu"] = be.upload(np.asarray(case["cu"], np.int64).view(np.uint8))
            common["cu"] = be.address(keep["cu"])
        outs = {"y": poison("y", B * L * D, out_size), "ht": poison("ht", N * D, 4)}
        outs["saved"] = poison("saved", saved_rows * D, 4)
        access = min(align(ins[n], [D * size]) for n in "xabc" if n in ins)

        def launch(op, params, dy_size):
            back = op == "backward"
            V = 1 if suffix else row["VM" if march else "VCB" if back else "VC"]
            # The plain entries want V channels aligned as one.
            if not suffix and (params.access < V * size or params.out_access < V * out_size):
                V, entry_suffix, dy_size = 1, "_any", 4
            else:
                entry_suffix = suffix
            chunk = row["CHUNKB" if back else "CHUNK"]
            across = -(-D // (32 * V))
            columns = across * (1 if case["cu"] is not None and not march else N)
            walk = L // chunk + N if case["cu"] is not None else max(1, -(-L // chunk))
            if march:
                least = save // row["STAGE"] + 1 if back else 1
                params.stages = max(least, min(row["SB" if back else "SF"], -(-L // row["STAGE"])))
                line = 32 * V * (4 * size + (dy_size if back else 0))
                shared = params.stages * row["STAGE"] * line + (save * 32 * V * 4 if back else 0)
                grid, threads = columns, 32
            else:
                params.stages = row["CB" if back else "CF"]
                line = 32 * V * (4 * size + (dy_size if back else 0))
                shared = params.stages * chunk * line + (2 if back else 1) * (chunk // sub) * 32 * V * 16
                shared += row["FOLDB" if back else "FOLD"] * 32 * V * 16 + chunk // sub * 32 * V * 4 + 512
                grid, threads = columns * workers, 32 * chunk // sub
                if workers > 1:
                    bytes_ = -(-columns * 4 // 256) * 256 + columns * walk * 32 * V * 16
                    keep["work"] = be.upload(np.full(bytes_, 0xFF, np.uint8))
                    params.work = be.address(keep["work"])
            if grid and D and N:
                name = "march" if march else "chunked"
                be.launch(f"scan_{op}_{name}_{kind}{entry_suffix}", params, grid, threads, shared)
                be.sync()

        f = Forward(**common, access=access, out_access=align(outs["y"], [D * out_size]), y=outs["y"], ht=outs["ht"],
                    saved=outs["saved"], **{n: ins[n] for n in ("x", "a", "b", "c", "h0") if n in ins})
        if case["policy"] == "nothing":
            f.y, f.c = 0, 0
        launch("forward", f, 0)
        grads = {n: poison(n, B * L * D, size) for n in case["grads"] if n[1:] in ins and n != "dh0"}
        grads["dh0"] = poison("dh0", N * D, 4)
        access = min([access] + [align(grads[n], [D * size]) for n in grads if n != "dh0"])
        g = Backward(**common, access=access, out_access=align(ins["dy"], [D * out_size]), saved=outs["saved"],
                     **{n: ins[n] for n in ("x", "a", "b", "c", "h0", "dy", "dht") if n in ins}, **grads)
        launch("backward", g, 4 if suffix else out_size)
        fetch("saved", saved_rows * D, 4)
        result = {"ht": fetch("ht", N * D, 4), "dh0": fetch("dh0", N * D, 4)}
        if case["policy"] != "nothing":
            result["y"] = fetch("y", B * L * D, out_size)
        if full:
            result["h"] = fetch("saved", B * L * D, 4)
        for n in grads:
            if n != "dh0":
                result[n] = fetch(n, B * L * D, size)
        return result

    def case(self, rng, kind, out_kind, case, workers=(1, 2, 5), misalign=0):
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
                if not error <= TYPES[k][2]:
                    bad.append(f"{name} {n} error {error:.2e}")
                if name.startswith("chunked") and not np.array_equal(raw, runs["march"][n]):
                    bad.append(f"{name} {n} differs from march in {np.mean(raw != runs['march'][n]):.3f} of its bytes")
        return bad


def cases():
    base = dict(B=1, L=100, D=64, reverse=False, cu=None, absent=(), policy="chunks",
                grads=("dx", "da", "db", "dc"))
    def case(**changes):
        return {**base, **changes}
    for L in (0, 1, 3, 15, 16, 17, 33, 127, 128, 129, 256, 300, 1000):
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
