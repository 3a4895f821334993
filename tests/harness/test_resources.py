"""What compiled code needs, out of the tools' output, and whether a device has it."""

import pytest

from kernelevolve.hardware.devices import known
from kernelevolve.harness.resources import (
    amd_instructions,
    amd_registers,
    amd_scalars,
    excess,
    nvidia_instructions,
    nvidia_registers,
    residency,
)
from kernelevolve.schema import Instructions, Resources

USAGE = """
Resource usage:
 Common:
  GLOBAL:0
 Function gemm:
  REG:168 STACK:24 SHARED:0 LOCAL:0 CONSTANT[0]:576 TEXTURE:0 SURFACE:0 SAMPLER:0
"""
SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0010*/              @!P0 LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0020*/                   LDG.E R4, desc[UR4][R2.64] ;
        /*0030*/                   LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64], P1 ;
        /*0040*/                   HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24 ;
        /*0050*/                   HMMA.16816.F32 R4, R8, R10, R4 ;
        /*0060*/                   STL.64 [R1], R4 ;
        /*0070*/                   UTMALDG.2D [UR8], [UR4] ;
"""
GCN = """
gemm:
	s_load_dwordx2 s[0:1], s[4:5], 0x0
	global_load_dwordx4 v[0:3], v4, s[0:1]
	buffer_load_dword v5, s[0:3], 0 offen lds
	v_mfma_f32_32x32x8_bf16_1k a[0:15], v[0:1], v[2:3], a[0:15]
	scratch_store_dword off, v7, s0 offset:4
	s_endpgm
    .private_segment_fixed_size: 16
    .vgpr_count:     104
    .sgpr_count:     90
    .agpr_count:     32
"""


def needs(registers: int = 32, shared: int = 0, warps: int = 4, scalars: int = 0) -> Resources:
    counts = Instructions(total=1, tensor_core=0, vector_loads=0, async_copies=0, local_memory=0)
    return Resources(registers=registers, scalar_registers=scalars, spill_bytes=0, shared_bytes=shared,
                     num_warps=warps, num_stages=1, instructions=counts)  # fmt: skip


def test_nvidia_output_is_read() -> None:
    assert nvidia_registers(USAGE) == (168, 24)
    assert nvidia_instructions(SASS) == Instructions(
        total=8, tensor_core=2, vector_loads=1, async_copies=2, local_memory=1, warpgroup=1,
        tensor_operations=2 * 64 * 128 * 16 // 4 + 2 * 16 * 8 * 16, load_store=4, global_bytes=16 + 4 + 16,
    )  # fmt: skip


def test_amdgcn_text_is_read() -> None:
    assert amd_registers(GCN) == (104, 16)
    assert amd_scalars(GCN) == (90, 32)
    assert amd_instructions(GCN) == Instructions(
        total=6, tensor_core=1, vector_loads=1, async_copies=1, local_memory=1,
        tensor_operations=2 * 32 * 32 * 8, load_store=3, global_bytes=16 + 4,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("opcode", "operations", "size"),
    [
        ("HMMA.1688.F32.TF32", 2048, 0), ("QGMMA.64x256x32.F32.E4M3.E4M3", 262144, 0), ("UTCHMMA", 0, 0),
        ("LDG.E.U16", 0, 2), ("STG.E.64", 0, 8), ("LDG.E.ENL2.256", 0, 32), ("LDG.E.U8.CONSTANT", 0, 1),
    ],
)  # fmt: skip
def test_an_nvidia_opcode_says_how_much_it_does(opcode: str, operations: int, size: int) -> None:
    found = nvidia_instructions(f"        /*0000*/                   {opcode} R4, R8, R10, R4 ;")
    assert (found.tensor_operations, found.global_bytes) == (operations, size)


@pytest.mark.parametrize(
    ("opcode", "operations", "size"),
    [
        ("v_mfma_f32_16x16x4_4b_f32", 2 * 16 * 16 * 4 * 4, 0), ("global_load_b128", 0, 16),
        ("buffer_store_dwordx2", 0, 8), ("global_load_ushort", 0, 2), ("flat_load_dword", 0, 4),
        ("buffer_load_ubyte", 0, 1), ("ds_read_b64", 0, 0),
    ],
)  # fmt: skip
def test_an_amd_opcode_says_how_much_it_does(opcode: str, operations: int, size: int) -> None:
    found = amd_instructions(f"gemm:\n\t{opcode} v[0:3], v4, s[0:1]\n")
    assert (found.tensor_operations, found.global_bytes) == (operations, size)


@pytest.mark.parametrize(
    ("device", "resources", "blocks", "occupancy"),
    [
        ("nvidia-h200", needs(registers=32), 16, 1.0),
        ("nvidia-h200", needs(registers=168, warps=8), 1, 0.125),  # 12 warps' worth of registers
        ("nvidia-h200", needs(registers=128, warps=8), 2, 0.25),
        ("nvidia-h200", needs(shared=100 << 10), 2, 0.125),
        ("nvidia-a100", needs(shared=100 << 10), 1, 0.0625),
        ("amd-mi300x", needs(registers=128), 4, 0.5),
        ("amd-mi300x", needs(shared=40 << 10), 1, 0.125),
        ("nvidia-h200", needs(shared=32_276), 6, 0.375),  # 33,300 with the reserve would fit 7 times; 261 x 128 don't
        ("nvidia-a100", needs(registers=65), 7, 0.4375),  # 72 a thread: 28 warps
        ("nvidia-a100", needs(warps=1), 32, 0.5),  # blocks, not warps
        ("nvidia-b200", needs(registers=255, warps=4), 2, 0.125),
        ("amd-mi300x", needs(registers=90), 5, 0.625),  # 96 of the unified 512: five waves a vector unit
        ("amd-mi300x", needs(registers=264), 1, 0.125),  # accumulators share the file
        ("amd-mi300x", needs(registers=59, scalars=82, warps=1), 28, 0.875),  # seven waves: 112 scalars of 800
        ("amd-mi300x", needs(registers=42, scalars=46), 8, 1.0),
        ("amd-mi355x", needs(registers=70, shared=77_104, warps=8), 2, 0.5),
        ("amd-mi300x", needs(shared=21_800), 2, 0.25),  # 43 x 512 bytes
        ("amd-mi355x", needs(shared=54_600), 2, 0.25),  # 43 x 1280 bytes
    ],
)
def test_occupancy_follows_the_scarcest_resource(device, resources, blocks, occupancy) -> None:
    found = residency(resources, known(device), (1000, 1, 1))
    assert (found.blocks, found.occupancy) == (blocks, occupancy)
    assert found.waves == pytest.approx(1000 / (blocks * known(device).multiprocessors))


@pytest.mark.parametrize(
    ("resources", "grid", "resource", "limit"),
    [
        (needs(shared=240_000), (1, 1, 1), "shared_memory", 232_448),
        (needs(warps=64), (1, 1, 1), "threads", 1024),
        (needs(registers=200, warps=16), (1, 1, 1), "registers", 65_536),
        (needs(), (1, 70_000, 1), "grid", 65_535),
    ],
)
def test_what_exceeds_the_device_is_named_with_number_and_limit(resources, grid, resource, limit) -> None:
    (finding,) = excess(resources, known("nvidia-h200"), grid)
    assert (finding.resource, finding.limit) == (resource, limit)
    assert str(limit) in finding.message
    found = residency(resources, known("nvidia-h200"), grid)
    assert (found.blocks, found.waves) == (0, None)
