"""In a process of its own: does the GPU still compute? Prints `healthy` where it does.

`python -m kernelevolve.harness.device_probe [DEVICE]`. A device may hang, or end the process: see device_health.
"""

import sys

import torch

HEALTHY = "healthy"
_ELEMENTS = 1 << 20


def check(device: str) -> str:
    """Allocate, compute, copy back, compare with the same on the host."""
    values = torch.arange(_ELEMENTS, dtype=torch.int32)
    back = (values.to(device) * 3 + 1).cpu()
    if not torch.equal(back, values * 3 + 1):
        wrong = int((back != values * 3 + 1).sum())
        return f"{wrong} of {_ELEMENTS} integers are computed wrongly"
    return HEALTHY


if __name__ == "__main__":
    sys.stdout.write(check(sys.argv[1] if len(sys.argv) > 1 else "cuda"))
