"""A peer of `npm run bench:cuda`: PyTorch on a CUDA device, on batches of matrices of one shape.

It answers each line of request with a line of JSON: the milliseconds of each repeat, each of which is waited for.
"""

import json
import sys
import time

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
device = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")


def newton_schulz(x):
    """Five iterations in bfloat16 over a batch, as in torch.optim.Muon."""
    a, b, c = COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = (x.mT if tall else x).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


def update(weight, direction):
    rate = 1e-3 * 0.2 * max(weight.shape[-2:]) ** 0.5
    weight.mul_(1 - 1e-3 * 0.1).sub_(direction * rate)


def muon_step(weight, gradient, buffer):
    buffer.mul_(0.95).add_(gradient)
    update(weight, newton_schulz(gradient + 0.95 * buffer))


def root_step(weight, gradient, buffer):
    """The paper's step, with an exact quantile from two selections a matrix."""
    buffer.mul_(0.95).add_(gradient)
    look_ahead = gradient + 0.95 * buffer
    position = 0.9 * (look_ahead[0].numel() - 1)
    for one in look_ahead:
        magnitudes = one.abs().flatten()
        low = magnitudes.kthvalue(int(position) + 1).values
        high = magnitudes.kthvalue(min(int(position) + 2, magnitudes.numel())).values
        threshold = low + (high - low) * (position - int(position))
        one.clamp_(-threshold, threshold)
    update(weight, newton_schulz(look_ahead))


compiled_muon_step = torch.compile(muon_step, dynamic=False)


def arrays(count, rows, columns):
    return [torch.randn(count, rows, columns, device=device) for _ in range(3)]


def torch_muon(count, rows, columns):
    weights = [torch.nn.Parameter(torch.randn(rows, columns, device=device)) for _ in range(count)]
    for weight in weights:
        weight.grad = torch.randn(rows, columns, device=device)
    return torch.optim.Muon(weights, lr=1e-3, weight_decay=0.1, adjust_lr_fn="match_rms_adamw").step


def bind(step):
    return lambda *shape: (lambda state: lambda: step(*state))(arrays(*shape))


def copy_task(count, rows, columns):
    source, target, _ = arrays(count, rows, columns)
    return lambda: target.copy_(source)


def product_task(count, rows, columns):
    a, b = (torch.randn(rows, columns, device=device, dtype=torch.bfloat16) for _ in range(2))
    return lambda: a @ b.mT


TASKS = {"muon": bind(compiled_muon_step), "root": bind(root_step), "copy": copy_task, "product": product_task}
if hasattr(torch.optim, "Muon"):
    TASKS["torch.optim.Muon"] = torch_muon

name = f"PyTorch {torch.__version__}, {torch.cuda.get_device_name(device)}"
print(json.dumps({"name": name, "tasks": list(TASKS)}), flush=True)
tasks = {}
with torch.no_grad():
    for line in sys.stdin:
        request = json.loads(line)
        key = (request["task"], request["count"], request["rows"], request["columns"])
        if key not in tasks:
            if tasks and next(iter(tasks))[1:] != key[1:]:
                tasks.clear()
                torch.cuda.empty_cache()
            tasks[key] = TASKS[key[0]](*key[1:])
            for _ in range(3):
                tasks[key]()
        samples = []
        for _ in range(request["repeats"]):
            torch.cuda.synchronize()
            start = time.perf_counter()
            tasks[key]()
            torch.cuda.synchronize()
            samples.append(1e3 * (time.perf_counter() - start))
        print(json.dumps(samples), flush=True)
