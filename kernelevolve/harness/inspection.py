"""What compiled kernels need, found out for all kernels of a candidate at once.

nvdisasm takes most of a second to start, whatever it is given, so it is started once and gets all code in one piece.
"""

import subprocess
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

from kernelevolve.errors import ToolchainError
from kernelevolve.harness.cubin import code_sections, listing, tool
from kernelevolve.harness.hot_loop import hot_loop
from kernelevolve.harness.resources import (
    amd_instructions,
    amd_registers,
    amd_scalars,
    nvidia_instructions,
    nvidia_registers,
)
from kernelevolve.schema import Instructions, Resources


class Inspection:
    """Kernels that Triton has compiled, by their hash."""

    def __init__(self) -> None:
        self._kernels: dict[str, Any] = {}

    def add(self, compiled: Any) -> str:
        """Remember a kernel; its hash."""
        self._kernels.setdefault(compiled.hash, compiled)
        return str(compiled.hash)

    def resources(self) -> dict[str, Resources]:
        """Of every kernel, by its hash. Raises `ToolchainError`."""
        kernels = list(self._kernels.items())
        cubins = [(name, k.asm["cubin"], k.metadata.target.arch) for name, k in kernels if "cubin" in k.asm]
        texts = dict(zip((name for name, _, _ in cubins), disassembled([(c, a) for _, c, a in cubins]), strict=True))
        return {name: _resources(kernel, texts.get(name)) for name, kernel in kernels}


def _resources(compiled: Any, code: str | None) -> Resources:
    metadata = compiled.metadata
    count: Callable[[str], Instructions] = nvidia_instructions
    scalars, accumulators = 0, 0
    if code is not None:
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            file.write(compiled.asm["cubin"])
            file.flush()
            registers, stack = nvidia_registers(_tool("cuobjdump", "--dump-resource-usage", file.name))
    else:
        code, count = compiled.asm["amdgcn"], amd_instructions
        registers, stack = amd_registers(code)
        scalars, accumulators = amd_scalars(code)
    loop = hot_loop(code)
    return Resources(
        registers=registers, accumulators=accumulators, scalar_registers=scalars, spill_bytes=stack,
        shared_bytes=metadata.shared, num_warps=metadata.num_warps, num_stages=metadata.num_stages,
        num_ctas=getattr(metadata, "num_ctas", 1), instructions=count(code), loop=count(loop) if loop else None,
    )  # fmt: skip


def disassembled(cubins: Sequence[tuple[bytes, int]]) -> list[str]:
    """The instructions of cubins (each with its capability, 90 for sm_90) as text. Raises `ToolchainError`."""
    if not cubins:
        return []
    codes = [b"".join(code_sections(cubin)) for cubin, _ in cubins]
    capability = cubins[0][1]
    name = f"SM{capability}{'a' if capability >= 90 else ''}"
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        printed = _tool("nvdisasm", "--binary", name, file.name)
    return listing(printed, [len(code) for code in codes])


def _tool(name: str, *arguments: str) -> str:
    done = subprocess.run([str(tool(name)), *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolchainError(f"{name} failed: {done.stderr.strip()}", remedy="install triton anew")
    return done.stdout
