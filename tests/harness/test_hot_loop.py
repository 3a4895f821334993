"""The loop that a matrix product spends its time in, found in what the disassemblers print."""

from kernelevolve.harness.hot_loop import hot_loop
from kernelevolve.harness.resources import amd_instructions, nvidia_instructions

SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_2:
        /*0010*/                   LDGSTS.E.BYPASS.128 [R23], desc[UR28][R18.64], P3 ;
        /*0020*/               @P6 BRA `(.L_x_0) ;
.L_x_1:
        /*0030*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR8].tnspB, R24 ;
        /*0040*/                   LDGSTS.E.BYPASS.128 [R73], desc[UR28][R12.64], P6 ;
        /*0050*/               @P6 BRA `(.L_x_1) ;
.L_x_0:
        /*0060*/               @P4 STG.E.128 desc[UR28][R18.64], R28 ;
        /*0070*/                   BRA `(.L_x_2) ;
.L_x_3:
        /*0080*/                   BRA `(.L_x_3);
"""
GCN = """
.LBB0_3:
	s_cbranch_scc1 .LBB0_6
.LBB0_5:                                ; %.lr.ph
	buffer_load_dwordx4 v[68:71], v68, s[24:27], 0 offen
	v_mfma_f32_32x32x8_bf16 v[0:15], v[88:89], v[90:91], v[0:15]
	s_cbranch_scc1 .LBB0_5
	s_branch .LBB0_7
.LBB0_6:
	v_mfma_f32_32x32x8_bf16 v[0:15], v[64:65], v[66:67], v[0:15]
.LBB0_7:
	global_store_dwordx2 v5, v[0:1], s[0:1]
"""


def test_the_inner_loop_is_counted_without_what_leads_up_to_it() -> None:
    counts = nvidia_instructions(hot_loop(SASS))
    assert (counts.total, counts.tensor_core, counts.async_copies, counts.global_bytes) == (3, 1, 1, 16)
    counts = amd_instructions(hot_loop(GCN))
    assert (counts.total, counts.tensor_core, counts.global_bytes) == (3, 1, 16)


def test_code_without_tensor_cores_or_without_loops_has_none() -> None:
    assert hot_loop(SASS.replace("HGMMA.64x64x16.F32.BF16", "FFMA")) == ""
    assert hot_loop("\n".join(line for line in SASS.splitlines() if "BRA" not in line)) == ""
    assert hot_loop("") == ""
