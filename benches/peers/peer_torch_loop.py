"""A loop over time in PyTorch, each step vectorised over batch and channels; gradients by autograd."""

import torch

NAME = "torch-loop"
DTYPES = ("f32", "f16", "bf16")
PYTHON_LOOP = True
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


def scan(x, a, b, c, h):
    out = []
    # unbind, whose gradient is one stack: the gradient of an index is a tensor of full size for every step.
    for xt, at, bt, ct in zip(*(v.unbind(1) for v in (x, a, b, c))):
        h = at * h + bt * xt
        out.append(ct * h)
    return torch.stack(out, dim=1), h


def loop(x, a, b, c):
    return scan(x, a, b, c, torch.zeros_like(x[:, 0]))[0]


def to_numpy(tensor):
    return tensor.detach().float().numpy()


def prepare(data, dtype, direction, function=loop):
    tensors = {k: torch.from_numpy(v).to(TYPES[dtype]) for k, v in data.items()}
    x, a, b, c, dy = (tensors[k] for k in ("x", "a", "b", "c", "dy"))

    def run_forward():
        with torch.no_grad():
            return {"y": function(x, a, b, c)}

    if direction == "forward":
        return run_forward
    leaves = [t.requires_grad_() for t in (x, a, b, c)]

    def run_train():
        y = function(*leaves)
        gradients = torch.autograd.grad(y, leaves, dy)
        return {"y": y, "da": gradients[1]}

    return run_train
