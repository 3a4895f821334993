"""What a machine puts at our disposal: the data that ships beside the code, and the GPUs that a process may see."""

import os
from pathlib import Path

from kernelevolve.errors import UsageError


def targets_dir(chosen: Path | None = None) -> Path:
    """Folder of the targets: the chosen one, `KERNELEVOLVE_TARGETS`, `./targets`, or the bundled one, in this order."""
    return _find("targets", chosen)


def prompts_dir(chosen: Path | None = None) -> Path:
    """Folder of the prompts: the chosen one, `KERNELEVOLVE_PROMPTS`, `./prompts`, or the bundled one, in this order."""
    return _find("prompts", chosen)


def exploits_dir(chosen: Path | None = None) -> Path:
    """Folder of the red team: the chosen one, the repository's, or the bundled one. Raises `UsageError`."""
    package = Path(__file__).parent
    for folder in (chosen,) if chosen else (package.parent / "tests" / "exploits", package / "bundled" / "exploits"):
        if folder.is_dir():
            return folder
    named = f"there is no folder {chosen}" if chosen else "the corpus of exploits is not installed"
    raise UsageError(named, remedy="name a folder of cases")


def _find(name: str, chosen: Path | None) -> Path:
    variable = f"KERNELEVOLVE_{name.upper()}"
    named = chosen or (Path(os.environ[variable]) if variable in os.environ else None)
    if named is not None:
        if not named.is_dir():
            raise UsageError(
                f"there is no folder {named}", remedy=f"point --{name} or {variable} at a folder of {name}"
            )
        return named
    package = Path(__file__).parent
    for folder in (Path.cwd() / name, package.parent / name, package / "bundled" / name):
        if folder.is_dir() and any(folder.iterdir()):
            return folder
    raise UsageError(f"no folder {name} was found", remedy=f"point --{name} or {variable} at one")


_GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def visible_gpus(vendor: str) -> str | None:
    """The GPUs that whoever started this process leaves it, as the vendor's runtime reads it; None for all."""
    names = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES") if vendor == "amd" else ("CUDA_VISIBLE_DEVICES",)
    return next((os.environ[name] for name in names if name in os.environ), None)


def gpu_environment() -> dict[str, str]:
    """What says which GPUs a process may see, for one that gets an environment of its own."""
    return {name: os.environ[name] for name in _GPU_VARIABLES if name in os.environ}
