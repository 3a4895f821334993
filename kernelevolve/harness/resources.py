"""What compiled code needs, and whether a device has it. Reads the output of cuobjdump, nvdisasm and amdgcn text."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.hardware.devices import Gpu
from kernelevolve.schema import Diagnostic, Instructions, LimitExceeded, Resources

_USAGE = re.compile(r"\bREG:(?P<registers>\d+)\s+STACK:(?P<stack>\d+)")
_SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?(?P<opcode>[A-Z][A-Z0-9_.]*)")
_GCN = re.compile(r"^\s+(?P<opcode>(?:s|v|ds|global|buffer|flat|scratch)_\w+)(?P<operands>[^\n;]*)", re.MULTILINE)
_GCN_FIELD = r"\.{}:\s+(\d+)"
_TENSOR_CORE = re.compile(r"(?:[HIQDBO]G?MMA|UTC\w*MMA)(?:\.|$)")
_VECTOR_LOAD = re.compile(r"LDG\..*\b128\b")
_REGISTER_UNIT = 8
"""Registers are handed out in eights a thread."""
_GRID_SIDE = 65535
"""Most blocks along the second and third axis of a grid."""


@dataclass(frozen=True)
class Residency:
    """How much of a kernel a multiprocessor holds at once."""

    blocks: int
    occupancy: float
    waves: float | None


def nvidia_registers(usage: str) -> tuple[int, int]:
    """Registers and stack bytes a thread, out of `cuobjdump --dump-resource-usage`: the most of any function."""
    found = [(int(m["registers"]), int(m["stack"])) for m in _USAGE.finditer(usage)]
    return max((r for r, _ in found), default=0), max((s for _, s in found), default=0)


def nvidia_instructions(disassembly: str) -> Instructions:
    """Counts out of what nvdisasm prints."""
    opcodes = [m["opcode"] for m in _SASS.finditer(disassembly)]
    return Instructions(
        total=len(opcodes),
        tensor_core=sum(bool(_TENSOR_CORE.match(o)) for o in opcodes),
        vector_loads=sum(bool(_VECTOR_LOAD.match(o)) for o in opcodes),
        async_copies=sum(o.startswith(("LDGSTS", "UTMALDG", "UBLKCP")) for o in opcodes),
        local_memory=sum(o.split(".")[0] in ("LDL", "STL") for o in opcodes),
    )  # fmt: skip


def amd_registers(text: str) -> tuple[int, int]:
    """Vector registers (accumulators included) and stack bytes a thread, out of amdgcn text."""
    return _gcn_field(text, "vgpr_count"), _gcn_field(text, "private_segment_fixed_size")


def amd_instructions(text: str) -> Instructions:
    """Counts out of amdgcn text."""
    found = [(m["opcode"], m["operands"]) for m in _GCN.finditer(text)]
    loads = [(o, rest) for o, rest in found if re.match(r"(?:global|buffer|flat)_load_", o)]
    return Instructions(
        total=len(found),
        tensor_core=sum(o.startswith(("v_mfma", "v_smfma")) for o, _ in found),
        vector_loads=sum(o.endswith(("dwordx4", "b128")) and not _to_shared(o, rest) for o, rest in loads),
        async_copies=sum(_to_shared(o, rest) for o, rest in loads),
        local_memory=sum(o.startswith(("scratch_load", "scratch_store")) for o, _ in found),
    )


def residency(resources: Resources, gpu: Gpu, grid: Sequence[int]) -> Residency:
    """Blocks that are resident at once on a multiprocessor, by registers, shared memory and warps."""
    blocks = 0 if excess(resources, gpu, grid) else _resident_blocks(resources, gpu)
    occupancy = blocks * resources.num_warps / gpu.warps_per_multiprocessor
    total = math.prod(grid) * resources.num_ctas
    waves = total / (blocks * gpu.multiprocessors) if blocks else None
    return Residency(blocks, occupancy, waves)


def _resident_blocks(resources: Resources, gpu: Gpu) -> int:
    by_warps = min(gpu.warps_per_multiprocessor // resources.num_warps, gpu.blocks_per_multiprocessor)
    shared = resources.shared_bytes + gpu.shared_reserved
    by_shared = gpu.shared_per_multiprocessor // shared if shared else by_warps
    warps = gpu.registers_per_multiprocessor // (_granted(resources, gpu) * gpu.warp_size)
    # Each of the four partitions of a multiprocessor holds whole warps.
    by_registers = warps // 4 * 4 // resources.num_warps
    return min(by_warps, by_shared, by_registers)


def _granted(resources: Resources, gpu: Gpu) -> int:
    units = max(1, -(-resources.registers // _REGISTER_UNIT))
    return units * _REGISTER_UNIT


def excess(resources: Resources, gpu: Gpu, grid: Sequence[int], where: str = "the kernel") -> tuple[Diagnostic, ...]:
    """Every limit of the device that a kernel breaks, with the number and the limit."""
    threads = resources.num_warps * gpu.warp_size
    registers = _granted(resources, gpu) * gpu.warp_size * resources.num_warps
    found = []
    if resources.shared_bytes > gpu.shared_per_block:
        message = f"{where} needs {resources.shared_bytes} bytes of shared memory a block: {gpu.product} has "
        advice = "smaller blocks, fewer num_stages, or a narrower element type in shared memory"
        found.append(
            LimitExceeded(
                message=f"{message}{gpu.shared_per_block}", advice=advice, resource="shared_memory",
                limit=gpu.shared_per_block,
            )
        )  # fmt: skip
    if threads > gpu.threads_per_block:
        message = f"{where} has {threads} threads a block: {gpu.product} takes {gpu.threads_per_block}"
        advice = f"at most {gpu.threads_per_block // gpu.warp_size} num_warps"
        found.append(LimitExceeded(message=message, advice=advice, resource="threads", limit=gpu.threads_per_block))
    elif registers > gpu.registers_per_multiprocessor:
        message = f"{where} needs {registers} registers a block: {gpu.product} has {gpu.registers_per_multiprocessor}"
        advice = "fewer num_warps, or smaller blocks"
        limit = gpu.registers_per_multiprocessor
        found.append(LimitExceeded(message=message, advice=advice, resource="registers", limit=limit))
    if max(grid[1:], default=0) > _GRID_SIDE:
        message = f"{where} has the grid {tuple(grid)}: the second and third axis take {_GRID_SIDE}"
        advice = "put the longest axis first, or let a block do more than one tile"
        found.append(LimitExceeded(message=message, advice=advice, resource="grid", limit=_GRID_SIDE))
    return tuple(found)


def _gcn_field(text: str, name: str) -> int:
    return max((int(value) for value in re.findall(_GCN_FIELD.format(name), text)), default=0)


def _to_shared(opcode: str, operands: str) -> bool:
    return "_lds" in opcode or operands.rstrip().endswith(" lds")
