"""A judge sees one GPU: the one that its job is for. Its runners, probes and profilers see the same."""

import logging
import os
from functools import cache

from kernelevolve import hardware
from kernelevolve.errors import UsageError
from kernelevolve.schema import Hardware

log = logging.getLogger(__name__)


def narrow(chosen: Hardware) -> None:
    """Leave this process, and those that it starts, the GPU of that product: the first of several.

    To be called before CUDA or HIP is used, since they look once. Raises `UsageError` where it may not be seen.
    """
    _narrow(chosen.vendor, chosen.key)


@cache
def _narrow(vendor: str, key: str) -> None:
    seen = hardware.visible_devices(vendor)
    if not seen:
        return  # the vendor's tool doesn't answer here: torch has the last word
    name = next((device.runtime for device in seen if device.hardware.key == key), None)
    if name is None:
        raise UsageError(
            f"{key} is not among the GPUs that this process may see",
            remedy=f"it sees {', '.join(d.hardware.key for d in seen)}; CUDA_VISIBLE_DEVICES (or HIP's) chooses",
        )
    if vendor == "amd":
        # Proton refuses HIP_VISIBLE_DEVICES, and an index into what ROCR leaves would be another device.
        os.environ.pop("HIP_VISIBLE_DEVICES", None)
        os.environ["ROCR_VISIBLE_DEVICES"] = name
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = name
    if len(seen) > 1:
        log.info("of %d GPUs, %s is used: %s", len(seen), name, key)
