"""The kernels from Python: parameter blocks, launch rules and the loading of a module.

The one place in Python that follows scan_abi.h and scan_tuning.h: check.py, bench.py and benches/peers/gpu_peers.py
launch through it. Which algorithm a problem is given is not decided here: that is the plan's, in ssm-cuda/src/plan.rs.
"""

import ctypes, os, re
from dataclasses import dataclass

HERE = os.path.dirname(os.path.abspath(__file__))
REVERSE, PACKED, SEQUENTIAL, FULL_H = 1, 2, 4, 8
# Storage type: its tag and its size in bytes.
TYPES = {"f32": (0, 4), "f16": (1, 2), "bf16": (2, 2)}
u64, u32 = ctypes.c_uint64, ctypes.c_uint32


def block(name, longs, ints):
    fields = [(n, u64) for n in longs.split()] + [(n, u32) for n in ints.split()]
    return type(name, (ctypes.Structure,), {"_fields_": fields})


TAIL = "flags access out_access out_type workers stages"
Forward = block("Forward", "x a b c h0 y ht saved cu work batch len channels sequences", TAIL)
Backward = block("Backward", "x a b c h0 saved dy dht dx da db dc dh0 cu work batch len channels sequences", TAIL)
Step = block("Step", "x a b c y state batch len channels", "out_type pad")


def tuning(arch, path=os.path.join(HERE, "..", "scan_tuning.h")):
    """The rows of one architecture, by storage type."""
    names, rows = [], {}
    for line in open(path):
        head = re.match(r"//\s+(arch type .*)", line)
        row = re.match(r"\s*ROW\((.*)\)", line)
        if head:
            names = head[1].split()
        elif row:
            cells = dict(zip(names, [w.strip() for w in row[1].split(",")]))
            cells = {k: (v if k == "type" else int(v)) for k, v in cells.items()}
            if cells["arch"] == arch:
                rows[cells["type"]] = cells
    return rows


def align(address, sizes):
    """The widest access that an address and the sizes of rows allow."""
    a = 16
    while a > 2 and (address % a or any(s % a for s in sizes)):
        a //= 2
    return a


def saved_rows(row, batch, length, sequences, packed):
    """State rows that forward leaves behind."""
    return length // row["SAVE"] + sequences if packed else batch * -(-length // row["SAVE"])


def lanes(row, op, algorithm):
    """Channels a lane, where every operand's alignment allows them."""
    return row["VM" if algorithm == "march" else "VCB" if op == "backward" else "VC"]


@dataclass
class Launch:
    """One kernel's launch; `work_bytes` of workspace are set to 0xff before it."""

    entry: str
    grid: int
    threads: int
    shared: int
    stages: int
    workers: int
    work_bytes: int


def geometry(row, op, algorithm, channels, length, sequences, *, wide=True, packed=False, out_size=None, workers=1,
             stages=None):
    """How an algorithm is launched. `wide`: types agree and addresses allow the vector path; `stages`: another ring."""
    kind, size, back, march = row["type"], TYPES[row["type"]][1], op == "backward", algorithm != "chunked"
    v = lanes(row, op, "march" if march else "chunked") if wide else 1
    out_size = (out_size or size) if wide else 4
    chunk, sub, save = row["CHUNKB" if back else "CHUNK"], row["SUB"], row["SAVE"]
    across = -(-channels // (32 * v))
    columns = across * (1 if packed and not march else sequences)
    line = 32 * v * (4 * size + (out_size if back else 0))
    work = 0
    if march:
        least = save // row["STAGE"] + 1 if back else 1
        stages = max(least, min(stages or row["SB" if back else "SF"], -(-length // row["STAGE"])))
        shared = stages * row["STAGE"] * line + (save // row["STAGE"] * 32 * v * 4 if back else 0)
        grid, threads, workers = columns, 32, 1
    else:
        stages, warps, kinds = 1, chunk // sub, 2 if back else 1
        fold = row["FOLDB" if back else "FOLD"]
        shared = chunk * line + (kinds * warps + fold) * 32 * v * 16 + kinds * warps * 32 * v * 4 + 512
        grid, threads = columns * workers, 32 * chunk // sub
        if workers > 1:
            walk = length // chunk + sequences if packed else max(1, -(-length // chunk))
            work = -(-columns * 8 // 256) * 256 + columns * walk * 32 * v * (16 if back else 24)
    entry = f"scan_{op}_{'march' if march else 'chunked'}_{kind}{'' if wide else '_any'}"
    return Launch(entry, grid, threads, shared, stages, workers, work)


class Module:
    """A module loaded by the driver, PTX or cubin, in the context that is current on this thread."""

    def __init__(self, path):
        self.cu = ctypes.CDLL("libcuda.so.1")
        self.module = ctypes.c_void_p()
        self.entries = {}
        device, most = ctypes.c_int(), ctypes.c_int()
        self.check(self.cu.cuCtxGetDevice(ctypes.byref(device)))
        self.check(self.cu.cuDeviceGetAttribute(ctypes.byref(most), 97, device))
        self.shared_max = most.value
        self.check(self.cu.cuModuleLoad(ctypes.byref(self.module), str(path).encode()))

    def check(self, code):
        if code:
            text = ctypes.c_char_p()
            self.cu.cuGetErrorName(code, ctypes.byref(text))
            raise RuntimeError(f"CUDA error {code} ({(text.value or b'?').decode()})")

    def entry(self, name):
        if name not in self.entries:
            f = ctypes.c_void_p()
            self.check(self.cu.cuModuleGetFunction(ctypes.byref(f), self.module, name.encode()))
            self.check(self.cu.cuFuncSetAttribute(f, 8, self.shared_max))
            self.entries[name] = f
        return self.entries[name]

    def fill(self, address, size, stream=0):
        """Sets a workspace to 0xff."""
        self.check(self.cu.cuMemsetD8Async(u64(address), ctypes.c_ubyte(255), ctypes.c_size_t(size),
                                           ctypes.c_void_p(stream)))

    def launch(self, entry, params, grid, threads, shared, stream=0):
        args = (ctypes.c_void_p * 1)(ctypes.cast(ctypes.byref(params), ctypes.c_void_p))
        self.check(self.cu.cuLaunchKernel(self.entry(entry), u32(grid), u32(1), u32(1), u32(threads), u32(1), u32(1),
                                          u32(shared), ctypes.c_void_p(stream), args, None))
