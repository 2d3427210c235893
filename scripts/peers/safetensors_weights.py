"""Writes the file of test/golden/safetensors.json: one tensor of each type that `loadWeights` reads.

    python3 scripts/peers/safetensors_weights.py > test/golden/safetensors.json
"""

import base64
import json

import safetensors
import torch
from safetensors.torch import save

VALUES = {
    "weight": torch.tensor([[0.1, -2.5, 3e-8], [65504.0, -6e-8, 1.0]]),
    "bias": torch.tensor([1 / 3, -0.0, 1e-5]),
}
TYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

tensors = {f"{kind}.{name}": value.to(dtype) for kind, dtype in TYPES.items() for name, value in VALUES.items()}
tensors["steps"] = torch.tensor([7])  # an int64, which no parameter takes
case = {
    "file": base64.b64encode(save(tensors)).decode(),
    "values": {name: value.float().flatten().tolist() for name, value in tensors.items()},
}
doc = f"Written by safetensors {safetensors.__version__} of Python; see scripts/peers/safetensors_weights.py"
print(json.dumps({"doc": doc, "cases": [case]}, separators=(",", ":")))
