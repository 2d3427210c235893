"""A peer of `npm run bench:peers`: PyTorch on the CPU, in float32.

It answers each line of request with a line of JSON.
"""

import json
import sys
import time

import torch

COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def newton_schulz(x):
    """Five iterations as in torch.optim.Muon, but in float32. This costs a CPU nothing, as it has no fast bfloat16."""
    a, b, c = COEFFICIENTS
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        polynomial = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.addmm(x, polynomial, x, beta=a)
    return x.T if tall else x


def quantile(x, q):
    """torch.quantile sorts and refuses more than 2^24 elements. Two calls of kthvalue give the same number for less."""
    position = (x.numel() - 1) * q
    low = int(position)
    below = x.kthvalue(low + 1).values
    above = x.kthvalue(min(low + 2, x.numel())).values
    return below + (above - below) * (position - low)


def orthogonalize_task(rows, columns):
    x = torch.randn(rows, columns)
    return lambda: newton_schulz(x)


def root_task(rows, columns):
    weight, gradient, buffer = (torch.randn(rows, columns) for _ in range(3))

    def step():
        buffer.mul_(0.95).add_(gradient)
        update = gradient.add(buffer, alpha=0.95)
        threshold = quantile(update.abs().flatten(), 0.9).item()
        update.clamp_(-threshold, threshold)
        weight.mul_(1 - 1e-3 * 0.1).add_(newton_schulz(update), alpha=-1e-3 * 0.2 * max(rows, columns) ** 0.5)

    return step


def muon_task(rows, columns):
    weight = torch.nn.Parameter(torch.randn(rows, columns))
    weight.grad = torch.randn(rows, columns)
    return torch.optim.Muon([weight], lr=1e-3).step


TASKS = {"orthogonalize": orthogonalize_task, "root": root_task}
if hasattr(torch.optim, "Muon"):
    TASKS["muon"] = TASKS["muon-bfloat16"] = muon_task

print(json.dumps({"name": f"PyTorch {torch.__version__}", "tasks": list(TASKS)}), flush=True)
tasks = {}
for line in sys.stdin:
    request = json.loads(line)
    torch.set_num_threads(request["threads"])
    key = (request["task"], request["rows"], request["columns"])
    if key not in tasks:
        tasks = {key: TASKS[key[0]](*key[1:])}
        with torch.no_grad():
            tasks[key]()
    samples = []
    with torch.no_grad():
        for _ in range(request["repeats"]):
            start = time.perf_counter()
            tasks[key]()
            samples.append(1e3 * (time.perf_counter() - start))
    print(json.dumps(samples), flush=True)
