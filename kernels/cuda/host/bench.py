"""Times kernels of several cubins on a GPU and checks them against float64 at full size.

    python3 bench.py DIR [seconds]     DIR holds NAME.cubin and NAME.h (its scan_tuning.h)

Prints the share of a device-to-device copy's bandwidth, counting each full-size tensor once.
"""

import os, sys
import numpy as np
import torch
import check
from launch import TYPES, Backward, Forward, align, geometry, saved_rows, tuning

f64 = torch.float64
TORCH = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def timed(f, repeat=11):
    for _ in range(2):
        f()
    marks = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeat)]
    for a, b in marks:
        a.record()
        f()
        b.record()
    torch.cuda.synchronize()
    return float(np.median([a.elapsed_time(b) for a, b in marks]))


def graphed(f, many=50):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        f()
        g = torch.cuda.CUDAGraph()
        with torch.cuda.graph(g, stream=stream):
            for _ in range(many):
                f()
    return timed(g.replay, 7) / many


def scan64(a, u, start):
    """h over dim 1 in float64, by blocks of time."""
    B, L, D = a.shape
    T = 1
    while T * T < L:
        T *= 2
    K = L // T
    a, u = a.view(B, K, T, D), u.view(B, K, T, D)
    s, p = torch.zeros(B, K, D, dtype=f64, device="cuda"), torch.ones(B, K, D, dtype=f64, device="cuda")
    for t in range(T):
        s, p = a[:, :, t] * s + u[:, :, t], p * a[:, :, t]
    entry, c = [], start
    for k in range(K):
        entry.append(c)
        c = p[:, k] * c + s[:, k]
    h, out = torch.stack(entry, 1), torch.empty_like(a)
    for t in range(T):
        h = a[:, :, t] * h + u[:, :, t]
        out[:, :, t] = h
    return out.view(B, L, D)


class Problem:
    def __init__(self, B, L, D, kind, h_only=False, policy="chunks"):
        self.B, self.L, self.D, self.kind = B, L, D, kind
        make = lambda: torch.randn(B, L, D, device="cuda", dtype=TORCH[kind])
        self.x, self.dy = make(), make()
        self.a = torch.rand(B, L, D, device="cuda", dtype=TORCH[kind]).mul_(0.3).add_(0.7)
        self.b, self.c = (None, None) if h_only else (make(), make())
        self.grads = [torch.full_like(self.x, float("nan")) for _ in range(2 if h_only else 4)]
        self.y = torch.full_like(self.x, float("nan"))
        self.h_only = h_only
        self.bytes = B * L * D * TYPES[kind][1]
        self.work = self.saved = None

    def moved(self, op):
        return self.bytes * ((3 if self.h_only else 5) if op == "forward" else (5 if self.h_only else 9))

    def launcher(self, device, row, op, algorithm, workers=1, stages=None, save_states=True):
        B, L, D, kind = self.B, self.L, self.D, self.kind
        size, march, back = TYPES[kind][1], algorithm == "march", op == "backward"
        wide = D % row["VM" if march else "VCB" if back else "VC"] == 0
        how = geometry(row, op, algorithm, D, L, B, wide=wide, workers=workers, stages=stages)
        if how.shared > device.shared_max:
            return None
        rows = saved_rows(row, B, L, B, False) * D
        if self.saved is None or self.saved.numel() < rows:
            self.saved = torch.full((rows,), float("nan"), device="cuda")
        p = lambda t: 0 if t is None else t.data_ptr()
        access = align(0, [D * size])
        common = dict(x=p(self.x), a=p(self.a), b=p(self.b), c=p(self.c), batch=B, len=L, channels=D, sequences=B,
                      access=access, out_access=access, out_type=TYPES[kind][0], workers=how.workers,
                      stages=how.stages, saved=p(self.saved) if save_states else 0)
        if back:
            g = self.grads + [None] * (4 - len(self.grads))
            params = Backward(**common, dy=p(self.dy), dx=p(g[0]), da=p(g[1]), db=p(g[2]), dc=p(g[3]))
        else:
            params = Forward(**common, y=p(self.y))
        if how.work_bytes:
            if self.work is None or self.work.numel() < how.work_bytes:
                self.work = torch.empty(how.work_bytes, dtype=torch.uint8, device="cuda")
            params.work = p(self.work)

        def launch():
            if how.work_bytes:
                device.fill(params.work, how.work_bytes, torch.cuda.current_stream().cuda_stream)
            device.launch(how.entry, params, how.grid, how.threads, how.shared)

        return launch

    def reference(self):
        a, u = self.a.to(f64), self.x.to(f64)
        if self.b is not None:
            u = u * self.b
        zero = torch.zeros(self.B, self.D, dtype=f64, device="cuda")
        h = scan64(a, u, zero)
        del u
        c = 1.0 if self.c is None else self.c.to(f64)
        self.want = {"y": (h * c)}
        dy = self.dy.to(f64)
        # g[t] = c·dy[t] + a[t+1]·g[t+1], as a scan of the flipped gates shifted by one.
        shifted = torch.zeros_like(a)
        shifted[:, 1:] = a.flip(1)[:, :-1]
        g = scan64(shifted, (c * dy).flip(1), zero).flip(1)
        before = torch.zeros_like(h)
        before[:, 1:] = h[:, :-1]
        self.want["da"] = before * g
        self.want["dc"] = dy * h
        self.want["dx"] = g if self.b is None else g * self.b
        self.want["db"] = g * self.x

    def error(self, op):
        norm = lambda got, n: float((got.to(f64) - self.want[n]).norm() / self.want[n].norm())
        if op == "forward":
            return norm(self.y, "y")
        return max(norm(t, n) for t, n in zip(self.grads, ("dx", "da", "db", "dc")))

    def outputs(self, op):
        return [self.y] if op == "forward" else self.grads

    def poison(self):
        for t in [self.y] + self.grads:
            t.fill_(float("nan"))


def main():
    folder = sys.argv[1]
    only = None
    names = sorted(f[:-6] for f in os.listdir(folder) if f.endswith(".cubin"))
    devices = {}
    for n in names:
        devices[n] = (check.Device(os.path.join(folder, n + ".cubin")), tuning(90, os.path.join(folder, n + ".h")))
    one, two = (torch.randint(0, 255, (1 << 30,), dtype=torch.uint8, device="cuda") for _ in range(2))
    copy = 2 * one.numel() / timed(lambda: two.copy_(one)) / 1e6
    del one, two
    print(f"{torch.cuda.get_device_name()}: copy {copy:.0f} GB/s")
    work = [(8, 2048, 4096, "f32"), (8, 2048, 4096, "bf16"), (1, 1 << 20, 64, "f32"), (1, 1 << 20, 64, "bf16"),
            (1, 65536, 1024, "f32"), (1, 65536, 1024, "bf16")]
    for B, L, D, kind in work:
        torch.cuda.empty_cache()
        p = Problem(B, L, D, kind)
        p.reference()
        lines, bits = [], {}
        for op in ("forward", "backward"):
            for name, (device, rows) in devices.items():
                row = rows[kind]
                plans = []
                lanes = B * D // (32 * row["VM"])
                if lanes >= 256:
                    line = 32 * row["VM"] * TYPES[kind][1] * (5 if op == "backward" else 4) * row["STAGE"]
                    extra = row["SAVE"] // row["STAGE"] * 32 * row["VM"] * 4 if op == "backward" else 0
                    for blocks in (1, 2, 3, 4, 6, 8):
                        stages = min(16, ((227 * 1024 // blocks) - 1024 - extra) // line)
                        if stages >= (row["SAVE"] // row["STAGE"] + 1 if op == "backward" else 2):
                            plans.append(("march", 1, stages))
                            if stages > 8 and op == "forward":
                                plans.append(("march", 1, stages // 2))
                across = B * -(-D // (32 * row["VCB" if op == "backward" else "VC"]))
                for per in (1, 2, 3):
                    plans.append(("chunked", max(1, 132 * per // across), None))
                seen = set()
                for plan in plans:
                    if plan in seen:
                        continue
                    seen.add(plan)
                    f = p.launcher(device, row, op, *plan)
                    if f is None:
                        continue
                    if op == "backward":
                        how = ("march", 1) if lanes >= 256 else ("chunked", 66)
                        p.launcher(device, row, "forward", *how, 2 if how[1] == 1 else 1)()
                    p.poison()
                    f()
                    torch.cuda.synchronize()
                    err = p.error(op)
                    key = (op, row["SUB"], row["CHUNK"], row["CHUNKB"])
                    sums = [int(t.view(torch.int16).to(torch.int64).sum()) for t in p.outputs(op)]
                    same = bits.setdefault(key, sums) == sums
                    ms = timed(f, 9)
                    share = p.moved(op) / ms / 1e6 / copy
                    lines.append((share, f"{op:8} {name:8} {plan[0]:7} w{plan[1]:<3} s{plan[2]:<2} {ms:.4f} ms "
                                  f"{share:.3f} err {err:.1e} {'' if same else 'BITS DIFFER'}"))
        print(f"({B}, {L}, {D}) {kind}")
        for op in ("forward", "backward"):
            for _, line in sorted([l for l in lines if l[1].startswith(op)], reverse=True)[:14]:
                print("  ", line, flush=True)
            for _, line in lines:
                if line.startswith(op) and ("DIFFER" in line or "nan" in line):
                    print("  !", line)
        del p
    torch.cuda.empty_cache()
    for B, L, D, kind, h_only in ((8, 65536, 1536, "f32", True), (8, 2048, 4095, "f32", False), (8, 2048, 4095, "bf16", False),
                                  (8, 2048, 1000, "bf16", False), (65536, 3, 64, "f32", False), (4096, 100, 64, "f32", False)):
        p = Problem(B, L, D, kind, h_only)
        for op in ("forward", "backward"):
            for name, (device, rows) in devices.items():
                out = []
                for plan in (("march", 1, None), ("chunked", 1, None)):
                    f = p.launcher(device, rows[kind], op, *plan)
                    ms = timed(f, 5)
                    out.append(f"{plan[0]} {ms:.4f} ms {p.moved(op) / ms / 1e6 / copy:.3f}")
                print((B, L, D), kind, "h only" if h_only else "", op, name, "; ".join(out), flush=True)
        del p
        torch.cuda.empty_cache()
    small = Problem(4, 2048, 16, "f16")
    for name, (device, rows) in devices.items():
        row, out = rows["f16"], []
        for op in ("forward", "backward"):
            for plan in (("march", 1, None), ("chunked", 1, None), ("chunked", 4, None), ("chunked", 8, None)):
                f = small.launcher(device, row, op, *plan)
                if f:
                    out.append(f"{op[0]} {plan[0]}/{plan[1]} {graphed(f) * 1e3:.1f} us")
        print("(4, 2048, 16) f16", name, "; ".join(out), flush=True)


if __name__ == "__main__":
    main()
