"""Who is measured by gpu_peers.py, each as a way to prepare one call on given tensors.

x, a, b, c and dy are (B, L, D) PyTorch tensors on the GPU, D contiguous. A contestant with a layout of its own is given
its inputs in it; turning them is not on the clock. `h-only` leaves out b and c.
"""

import importlib
import json
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "kernels/cuda/host"))

import launch as kernels

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
SIZES = {"f32": 4, "f16": 2, "bf16": 2}


class Unfit(Exception):
    """A case that a contestant cannot run."""


class Tensors(dict):
    """The operands by name; `dtype` and `shape` beside them."""


def draw(shape, dtype, seed):
    generator = torch.Generator(device="cuda").manual_seed(seed)
    make = lambda: torch.rand(shape, generator=generator, device="cuda", dtype=torch.float32)
    data = Tensors({n: (make() * 2 - 1).to(DTYPES[dtype]) for n in ("x", "b", "c", "dy")})
    # Gates in (0.5, 1): a logarithm exists in every type.
    data["a"] = (0.5 + 0.5 * make()).to(DTYPES[dtype])
    data.dtype, data.shape = dtype, tuple(shape)
    return data


def versions():
    names = ("torch", "triton", "jax", "fla", "accelerated_scan", "quick_ssm")
    found = {n: getattr(sys.modules.get(n), "__version__", None) for n in names}
    return ", ".join([f"CUDA {torch.version.cuda}"] + [f"{n} {v}" for n, v in found.items() if v])


def operands(data, variant):
    return [data[n] for n in ("x", "a", "b", "c")] if variant == "plain" else [data["x"], data["a"]]


def by_autograd(function, leaves, dy, direction):
    """A call of a PyTorch function: its result, its gradients, or both."""
    if direction == "forward":
        def forward():
            with torch.no_grad():
                return function(*leaves), None
        return forward
    leaves = [t.detach().requires_grad_() for t in leaves]
    if direction == "train":
        def train():
            y = function(*leaves)
            return y, torch.autograd.grad(y, leaves, dy)
        return train
    y = function(*leaves)
    return lambda: (y, torch.autograd.grad(y, leaves, dy, retain_graph=True))


class Contestant:
    name = ""
    slow = False
    any_length = True
    checkable = True
    capturable = True
    directions = ("forward", "backward", "train")

    def load(self):
        """Raises where it is not installed."""

    def fits(self, case):
        """Raises Unfit for a case that it cannot run."""

    def algorithm(self, case, direction):
        return "peer"

    def wait(self, result):
        """Until what a call left behind is queued on the device."""

    def outputs(self, result):
        """y and da of what a call gave, in (B, L, D)."""
        y, grads = result
        return {"y": y, "da": grads[1] if grads else None}


class Copy(Contestant):
    """The device's copy of as many bytes: what memory allows."""

    name, checkable = "device-copy", False

    def prepare(self, data, direction, variant):
        tensors = {"plain": (5, 9, 14), "h-only": (3, 5, 8)}[variant][self.directions.index(direction)]
        half = torch.empty(tensors * data["x"].numel() * SIZES[data.dtype] // 2, dtype=torch.uint8, device="cuda")
        other = torch.empty_like(half.fill_(1))
        return lambda: other.copy_(half)


class Ours(Contestant):
    """kernels/ptx, launched as a plan would."""

    name = "cuda-ptx"

    def load(self):
        properties = torch.cuda.get_device_properties(0)
        capability, count = [properties.major, properties.minor], properties.multi_processor_count
        rows = json.loads((ROOT / "benches/peers/launches.json").read_text())
        self.launches = {(r["op"], r["dtype"], tuple(r["shape"]), r["variant"]): r for r in rows
                         if r["capability"] == capability and r["multiprocessors"] == count}
        if not self.launches:
            raise Unfit(f"launches.json has none for {count} multiprocessors of capability {capability}")
        arch = max(a for a in (75, 80, 90) if a <= 10 * properties.major + properties.minor)
        torch.zeros(1, device="cuda")
        self.module = kernels.Module(ROOT / f"kernels/ptx/scan.sm_{arch}.ptx")
        self.tuning = kernels.tuning(arch)

    def algorithm(self, case, direction):
        shape, dtype, variant = case
        names = [self.launches[op, dtype, shape, variant]["algorithm"] for op in ("forward", "backward")]
        return {"forward": names[0], "backward": names[1]}.get(direction, "+".join(dict.fromkeys(names)))

    def passes(self, data, variant, keep):
        """One function a direction."""
        (batch, length, channels), dtype = data.shape, data.dtype
        tag, size = kernels.TYPES[dtype]
        rows = kernels.saved_rows(self.tuning[dtype], batch, length, batch, False)
        full = lambda: torch.full_like(data["x"], float("nan"))
        memory = {"y": full(), "saved": torch.full((rows * channels,), float("nan"), device="cuda")}
        grads = ("dx", "da", "db", "dc") if variant == "plain" else ("dx", "da")
        if keep:
            memory |= {n: full() for n in grads}
        at = {n: data[n].data_ptr() for n in (("x", "a", "b", "c") if variant == "plain" else ("x", "a"))}
        access = kernels.align(0, [channels * size])
        common = dict(at, batch=batch, len=length, channels=channels, sequences=batch, access=access, out_access=access,
                      out_type=tag)
        if keep:
            common["saved"] = memory["saved"].data_ptr()
        blocks = {"forward": kernels.Forward(**common, y=memory["y"].data_ptr())}
        if keep:
            blocks["backward"] = kernels.Backward(**common, dy=data["dy"].data_ptr(),
                                                  **{n: memory[n].data_ptr() for n in grads})

        def function(op):
            how, params = self.launches[op, dtype, data.shape, variant], blocks[op]
            params.stages, params.workers = how["stages"], how["workers"]
            if how["work_bytes"]:
                memory[op] = torch.empty(how["work_bytes"], dtype=torch.uint8, device="cuda")
                params.work = memory[op].data_ptr()

            def run():
                stream = torch.cuda.current_stream().cuda_stream
                if how["work_bytes"]:
                    self.module.fill(params.work, how["work_bytes"], stream)
                self.module.launch(how["entry"], params, how["grid"], how["threads"], how["shared"], stream)
                return memory
            return run
        return [function(op) for op in blocks]

    def prepare(self, data, direction, variant):
        passes = self.passes(data, variant, direction != "forward")
        if direction == "train":
            return lambda: [run() for run in passes][-1]
        if direction == "backward":
            passes[0]()
        return passes[-1]

    def outputs(self, memory):
        return {"y": memory["y"], "da": memory.get("da")}

    def fits(self, case):
        shape, dtype, variant = case
        if ("forward", dtype, shape, variant) not in self.launches:
            raise Unfit("launches.json has no such shape")


class QuickSsm(Contestant):
    name, any_length = "quick_ssm", False

    def load(self):
        self.scan = importlib.import_module("quick_ssm.scan_interface").scan

    def fits(self, case):
        (_, length, _), _, variant = case
        if variant != "plain":
            raise Unfit("it has no scan without b and c")
        if length & (length - 1):
            raise Unfit("it needs a power of two of steps")

    def prepare(self, data, direction, variant):
        scan = lambda x, a, b, c: self.scan(x, a, b, c, checkpoint=False)
        return by_autograd(scan, operands(data, variant), data["dy"], direction)


class AcceleratedScan(Contestant):
    """h only, in its own layout: (B, D, L), time contiguous."""

    def __init__(self, kernel):
        self.kernel, self.name, self.any_length = kernel, f"accelerated-scan-{kernel}", kernel == "scalar"

    def load(self):
        self.scan = importlib.import_module(f"accelerated_scan.{self.kernel}").scan

    def fits(self, case):
        (_, length, _), _, variant = case
        if variant != "h-only":
            raise Unfit("it has no b and c")
        if self.kernel == "warp" and (length & (length - 1) or not 32 <= length <= 65536):
            raise Unfit("it needs a power of two from 32 to 65,536 of steps")

    def prepare(self, data, direction, variant):
        x, a, dy = (data[n].transpose(1, 2).contiguous() for n in ("x", "a", "dy"))
        return by_autograd(lambda x, a: self.scan(a, x), [x, a], dy, direction)

    def outputs(self, result):
        return {n: t if t is None else t.transpose(1, 2) for n, t in super().outputs(result).items()}


class Hgrn(Contestant):
    """flash-linear-attention's HGRN: h only, on the logarithms of the gates; b and c by PyTorch around it."""

    def __init__(self, kernel):
        self.kernel, self.name = kernel, f"fla-hgrn-{kernel}"

    def load(self):
        ops = importlib.import_module("fla.ops.hgrn")
        self.hgrn = {"fused": ops.fused_recurrent_hgrn, "chunk": ops.chunk_hgrn}[self.kernel]

    def fits(self, case):
        (_, length, _), _, _ = case
        if self.kernel == "fused" and length > 100_000:
            raise Unfit("it takes step after step: half a second a call at 1,048,576 of them")

    def prepare(self, data, direction, variant):
        x, a, *gates = operands(data, variant)
        self.a = a
        plain = lambda x, g, b, c: c * self.hgrn(b * x, g)[0]
        function = (lambda x, g: self.hgrn(x, g)[0]) if variant == "h-only" else plain
        return by_autograd(function, [x, a.float().log().to(a.dtype), *gates], data["dy"], direction)

    def outputs(self, result):
        y, grads = result
        # d/da = d/d(log a) / a.
        return {"y": y, "da": grads and grads[1].double() / self.a.double()}


def combine(left, right):
    return left[0] * right[0], right[0] * left[1] + right[1]


class TorchCompile(Contestant):
    """torch's associative_scan under torch.compile."""

    name, slow, directions = "torch-associative-scan", True, ("forward", "train")

    def load(self):
        self.scan = importlib.import_module("torch._higher_order_ops.associative_scan").associative_scan

    def prepare(self, data, direction, variant):
        torch._dynamo.reset()

        def function(x, a, *gates):
            u = gates[0] * x if gates else x
            h = self.scan(combine, (a, u), dim=1, combine_mode="pointwise")[1]
            return gates[1] * h if gates else h
        return by_autograd(torch.compile(function, dynamic=False), operands(data, variant), data["dy"], direction)


class Jax(Contestant):
    """jax.lax.associative_scan under jit, on the same memory through DLPack; gradients by vjp."""

    name, capturable, directions = "jax-associative-scan", False, ("forward", "train")

    def load(self):
        self.jax = importlib.import_module("jax")
        if all(device.platform == "cpu" for device in self.jax.devices()):
            raise Unfit("jax sees no GPU")

        def scan(x, a, *gates):
            u = gates[0] * x if gates else x
            h = self.jax.lax.associative_scan(combine, (a, u), axis=1)[1]
            return gates[1] * h if gates else h

        def train(dy, *inputs):
            y, pull = self.jax.vjp(scan, *inputs)
            return y, pull(dy)
        self.forward, self.train = self.jax.jit(lambda *inputs: (scan(*inputs), None)), self.jax.jit(train)

    def prepare(self, data, direction, variant):
        torch.cuda.synchronize()
        take = self.jax.numpy.from_dlpack
        inputs, dy = [take(t) for t in operands(data, variant)], take(data["dy"])
        return (lambda: self.forward(*inputs)) if direction == "forward" else (lambda: self.train(dy, *inputs))

    def wait(self, result):
        self.jax.block_until_ready(result)

    def outputs(self, result):
        self.wait(result)
        return super().outputs((torch.from_dlpack(result[0]), result[1] and [torch.from_dlpack(g) for g in result[1]]))


ALL = [Copy(), Ours(), QuickSsm(), AcceleratedScan("scalar"), AcceleratedScan("warp"), Hgrn("fused"), Hgrn("chunk"),
       Jax(), TorchCompile()]
