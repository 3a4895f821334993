"""What compiled code needs, and whether a device has it. Reads the output of cuobjdump, nvdisasm and amdgcn text."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kernelevolve.hardware.devices import Gpu
from kernelevolve.schema import Diagnostic, Instructions, LimitExceeded, Resources

_USAGE = re.compile(r"\bREG:(?P<registers>\d+)\s+STACK:(?P<stack>\d+)")
_SASS = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?\w+\s+)?(?P<opcode>[A-Z][A-Z0-9_.x]*)")
_GCN = re.compile(r"^\s+(?P<opcode>(?:s|v|ds|global|buffer|flat|scratch)_\w+)(?P<operands>[^\n;]*)", re.MULTILINE)
_GCN_FIELD = r"\.{}:\s+(\d+)"
_TENSOR_CORE = re.compile(r"(?:[HIQDBO]G?MMA|UTC\w*MMA)(?:\.|$)")
_VECTOR_LOAD = re.compile(r"LDG\..*\b128\b")
_WARPGROUP = re.compile(r"[HIQ]GMMA|UTC\w*MMA")
_SASS_GLOBAL = ("LDG", "STG", "LDGSTS", "ATOMG", "REDG")
_SASS_MEMORY = frozenset({*_SASS_GLOBAL, "LDS", "STS", "LDSM", "STSM", "ATOMS", "LDL", "STL", "SHFL"})
_SASS_BYTES = (("256", 32), ("128", 16), ("64", 8), ("U16", 2), ("S16", 2), ("U8", 1), ("S8", 1))
_SASS_SHAPE = re.compile(r"\.(?:(?P<m>\d+)x(?P<n>\d+)x(?P<k>\d+)|(?P<packed>884|1684|1688|16816|16832|16864))(?:\.|$)")
_PACKED = {"884": 256, "1684": 512, "1688": 1024, "16816": 2048, "16832": 4096, "16864": 8192}
"""Multiply-adds of the shapes that opcodes write without an x: 16816 is 16 by 8 by 16."""
_GCN_GLOBAL = re.compile(r"(?:global|buffer|flat)_(?:load|store|atomic)_")
_GCN_MEMORY = re.compile(r"(?:global|buffer|flat|scratch|ds)_")
_GCN_BYTES = re.compile(
    r"(?P<dwords>dwordx(\d))|(?P<bits>b(\d+))|(?P<byte>[us]?byte|[iu]8)|(?P<short>[us]?short|[iu]16|d16)"
)
_GCN_SHAPE = re.compile(r"_(\d+)x(\d+)x(\d+)(?:_(\d+)b)?_")
_REGISTER_UNIT = 8
"""Registers are handed out in eights a thread (NVIDIA: 256 a warp; CDNA 3 and 4: of the one file for all)."""
_SHARED_UNIT = {"gfx942": 512, "gfx950": 1280}
"""Shared memory is handed out in pieces: of 128 bytes on NVIDIA (occupancy calculator, capability 8 and up), of 128
or 320 words on CDNA 3 and 4 (LLVM's AMDGPUBaseInfo.cpp, getLdsDwGranularity)."""
_SCALAR_FILE, _SCALAR_UNIT, _SCALAR_TRAP = 800, 16, 16
"""Scalar registers of a vector unit, how they are handed out, and those that a trap handler has in each wave (LLVM,
getMaxNumSGPRs): with more than 80 a wave there is room for seven waves."""
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
        warpgroup=sum(bool(_WARPGROUP.match(o)) for o in opcodes),
        tensor_operations=sum(_sass_operations(o) for o in opcodes if _TENSOR_CORE.match(o)),
        load_store=sum(o.split(".")[0] in _SASS_MEMORY for o in opcodes),
        global_bytes=sum(_sass_bytes(o) for o in opcodes if o.split(".")[0] in _SASS_GLOBAL),
    )  # fmt: skip


def _sass_bytes(opcode: str) -> int:
    parts = opcode.split(".")
    return next((size for name, size in _SASS_BYTES if name in parts), 4)


def _sass_operations(opcode: str) -> int:
    """Of one warp; 0 where the shape stands in a descriptor (Blackwell)."""
    found = _SASS_SHAPE.search(opcode)
    if found is None:
        return 0
    if found["packed"]:
        return 2 * _PACKED[found["packed"]]
    shared_by = 4 if _WARPGROUP.match(opcode) else 1
    return 2 * int(found["m"]) * int(found["n"]) * int(found["k"]) // shared_by


def amd_registers(text: str) -> tuple[int, int]:
    """Vector registers (accumulators included) and stack bytes a thread, out of amdgcn text."""
    return _gcn_field(text, "vgpr_count"), _gcn_field(text, "private_segment_fixed_size")


def amd_scalars(text: str) -> tuple[int, int]:
    """Scalar registers a wave, and how many of the vector registers are accumulators, out of amdgcn text."""
    return _gcn_field(text, "sgpr_count"), _gcn_field(text, "agpr_count")


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
        tensor_operations=sum(_gcn_operations(o) for o, _ in found if o.startswith(("v_mfma", "v_smfma"))),
        load_store=sum(bool(_GCN_MEMORY.match(o)) for o, _ in found),
        global_bytes=sum(_gcn_bytes(o) for o, _ in found if _GCN_GLOBAL.match(o)),
    )


def _gcn_bytes(opcode: str) -> int:
    found = _GCN_BYTES.search(opcode)
    if found is None:
        return 4
    if found["dwords"]:
        return 4 * int(found[2])
    return int(found[4]) // 8 if found["bits"] else 1 if found["byte"] else 2


def _gcn_operations(opcode: str) -> int:
    found = _GCN_SHAPE.search(opcode)
    if found is None:
        return 0
    m, n, k, blocks = (int(size or 1) for size in found.groups())
    return 2 * m * n * k * blocks


def residency(resources: Resources, gpu: Gpu, grid: Sequence[int]) -> Residency:
    """Blocks that are resident at once on a multiprocessor, by registers, shared memory and warps."""
    blocks = 0 if excess(resources, gpu, grid) else _resident_blocks(resources, gpu)
    occupancy = blocks * resources.num_warps / gpu.warps_per_multiprocessor
    total = math.prod(grid) * resources.num_ctas
    waves = total / (blocks * gpu.multiprocessors) if blocks else None
    return Residency(blocks, occupancy, waves)


def _resident_blocks(resources: Resources, gpu: Gpu) -> int:
    by_warps = min(gpu.warps_per_multiprocessor // resources.num_warps, gpu.blocks_per_multiprocessor)
    unit = _SHARED_UNIT.get(gpu.architecture, 128)
    shared = -(-(resources.shared_bytes + gpu.shared_reserved) // unit) * unit
    by_shared = gpu.shared_per_multiprocessor // shared if shared else by_warps
    warps = gpu.registers_per_multiprocessor // (_granted(resources, gpu) * gpu.warp_size)
    # Each of the four partitions of a multiprocessor holds whole warps.
    by_registers = warps // 4 * 4 // resources.num_warps
    return min(by_warps, by_shared, by_registers, _by_scalars(resources, by_warps))


def _by_scalars(resources: Resources, most: int) -> int:
    if resources.scalar_registers == 0:  # NVIDIA's uniform registers are every warp's own
        return most
    granted = -(-(resources.scalar_registers + _SCALAR_TRAP) // _SCALAR_UNIT) * _SCALAR_UNIT
    return _SCALAR_FILE // granted * 4 // resources.num_warps


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
