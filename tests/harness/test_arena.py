"""The judge's memory: laid out as declared, told to a runner without loss, and not for a candidate to write."""

import ctypes
import errno
import io
import mmap
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve.errors import JudgeError
from kernelevolve.harness.arena import CHECK_SLOTS, MOST_SLOTS, Arena, slot_count
from kernelevolve.harness.layout import ALIGNMENT, CONSTANT, INPUT, OUTPUT, SCALAR, Layout, lay_out, unpack
from kernelevolve.harness.oracle import Oracle
from kernelevolve.harness.outputs import Outputs
from kernelevolve.schema import (
    DTYPE_BYTES,
    Baseline,
    CostModel,
    ExactRule,
    Input,
    Output,
    Target,
    Workload,
)
from kernelevolve.testing.records import a_target

sizes = st.integers(0, 70)
dtypes = st.sampled_from(sorted(DTYPE_BYTES))
shapes = st.lists(sizes, max_size=4).map(tuple)


@st.composite
def a_signature(draw: st.DrawFn) -> Target:
    """Any inputs and outputs: tensors of any type and size (empty ones too), constants, scalars."""
    inputs = []
    for number in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["tensor", "constant", "scalar"]))
        if kind == "scalar":
            inputs.append(Input(name=f"i{number}", axis="N"))
        else:
            shape, dtype = draw(shapes), draw(dtypes)
            inputs.append(Input(name=f"i{number}", shape=shape, dtype=dtype, constant=kind == "constant"))
    outputs = tuple(
        Output(name=f"o{number}", shape=draw(shapes), dtype=draw(dtypes), rule=ExactRule())
        for number in range(draw(st.integers(1, 3)))
    )
    return Target(
        name="t", summary="", source="", axes={"N": ""}, dtypes={}, inputs=tuple(inputs), outputs=outputs,
        workloads=(), baselines=(Baseline(name="b", summary=""),), cost=CostModel(operations="N"), files={},
    )  # fmt: skip


@st.composite
def a_layout(draw: st.DrawFn) -> Layout:
    """Of one to three workloads, each with its own number of slots."""
    names = [f"w{i}" for i in range(draw(st.integers(1, 3)))]
    workloads = tuple(
        Workload(name=name, role="check", device="cpu", axes={"N": draw(st.integers(-(2**40), 2**40))})
        for name in names
    )
    return lay_out(draw(a_signature()), workloads, {name: draw(st.integers(1, 16)) for name in names})


@settings(deadline=None, max_examples=80)
@given(a_layout())
def test_a_runner_reads_the_layout_that_was_packed(layout: Layout) -> None:
    stream = io.BytesIO(layout.packed())
    read = unpack(stream.read)
    assert stream.read() == b""
    assert (read.input_bytes, read.output_bytes) == (layout.input_bytes, layout.output_bytes)
    for told, meant in zip(read.workloads, layout.workloads, strict=True):
        assert told.slots == meant.slots
        for a, b in zip(told.arguments, meant.arguments, strict=True):
            assert (a.kind, a.shape, a.value, a.offset, a.stride) == (b.kind, b.shape, b.value, b.offset, b.stride)
            assert a.dtype == b.dtype or a.kind == SCALAR


@settings(deadline=None, max_examples=80)
@given(a_layout())
def test_no_two_tensors_overlap_and_all_are_aligned_and_inside(layout: Layout) -> None:
    for kinds, total in (((INPUT, CONSTANT), layout.input_bytes), ((OUTPUT,), layout.output_bytes)):
        pieces = [
            (a.offset + slot * a.stride, a.size)
            for workload in layout.workloads
            for a in workload.tensors(*kinds)
            for slot in range(1 if a.kind == CONSTANT else workload.slots)
        ]
        end = 0
        for offset, size in sorted(piece for piece in pieces if piece[1]):
            assert offset >= end
            assert offset % ALIGNMENT == 0
            end = offset + size
        assert end <= total


# --- what lies in it ---


@pytest.fixture
def arena(tiny: Target, tmp_path: Path) -> Iterator[Arena]:
    arena = Arena(tiny, tiny.select("cpu", "search", "check"), Oracle(tiny, tmp_path, seed=1))
    yield arena
    arena.close()


def test_every_slot_holds_another_input_and_its_own_answer(arena: Arena) -> None:
    for number, workload in enumerate(arena.layout.workloads):
        slots = [arena.inputs(number, slot) for slot in range(workload.slots)]
        assert len({bytes(s["x"].numpy().tobytes()) for s in slots}) == workload.slots
        for slot, inputs in enumerate(slots):
            (truth,) = arena.truth(number, slot)
            assert torch.equal(truth.expected, inputs["x"].double() * inputs["factor"].double())


def test_constants_are_shared_by_the_slots_of_a_workload(arena: Arena) -> None:
    for number, workload in enumerate(arena.layout.workloads):
        factors = [arena.inputs(number, slot)["factor"] for slot in range(workload.slots)]
        assert len({factor.data_ptr() for factor in factors}) == 1


def test_two_judges_never_have_the_same_inputs(tiny: Target, tmp_path: Path) -> None:
    workloads = tiny.select("cpu", "search")
    made = [Oracle(tiny, tmp_path, seed).inputs(workloads[0])["x"] for seed in (1, 1, 2)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_small_workloads_rotate_through_many_slots_and_large_ones_through_some() -> None:
    target = a_target()
    few, many = (Workload(name="w", role="search", device="cpu", axes={"N": n}, dtypes={"T": "float32"})
                 for n in (1 << 30, 16))  # fmt: skip
    assert slot_count(target, many) == MOST_SLOTS["cpu"]
    assert 2 < slot_count(target, few) < MOST_SLOTS["cpu"]
    assert slot_count(target, target.workload("n7")) == CHECK_SLOTS


# --- who may write ---


def test_whoever_gets_the_inputs_descriptor_can_only_read(arena: Arena) -> None:
    size = arena.layout.input_bytes
    with pytest.raises(PermissionError):
        mmap.mmap(arena.fd, size, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    with pytest.raises(PermissionError):
        os.pwrite(arena.fd, b"x", 0)
    for length in (0, size * 2):
        with pytest.raises(PermissionError):
            os.ftruncate(arena.fd, length)
    with pytest.raises(PermissionError):
        reopened = os.open(f"/proc/self/fd/{arena.fd}", os.O_RDWR)
        try:
            os.pwrite(reopened, b"x", 0)
        finally:
            os.close(reopened)


def test_a_readable_mapping_of_the_inputs_cannot_be_made_writable(arena: Arena) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    at = libc.mmap(None, 4096, mmap.PROT_READ, mmap.MAP_SHARED, arena.fd, 0)
    assert at not in (None, ctypes.c_void_p(-1).value)
    assert libc.mprotect(at, 4096, mmap.PROT_READ | mmap.PROT_WRITE) == -1
    assert ctypes.get_errno() == errno.EACCES


def test_a_change_touches_one_row_of_one_slot_and_the_truth_follows(tiny: Target, tmp_path: Path) -> None:
    workloads = tiny.select("cpu", "search")
    arena = Arena(tiny, workloads, Oracle(tiny, tmp_path, seed=1))
    try:
        before = [arena.inputs(0, slot)["x"].clone() for slot in range(3)]
        arena.change(0, 1)
        after = [arena.inputs(0, slot)["x"] for slot in range(3)]
        assert [int((a != b).any(-1).sum()) for a, b in zip(after, before, strict=True)] == [0, 1, 0]
        right = after[1].double() * arena.inputs(0, 1)["factor"].double()
        assert torch.equal(arena.truth(0, 1)[0].expected, right)
    finally:
        arena.close()


def test_constants_change_for_all_slots_at_once_and_the_truth_follows(arena: Arena) -> None:
    before = arena.inputs(0, 0)["factor"].clone()
    arena.change_constants(0)
    factor = arena.inputs(0, 0)["factor"]
    assert int((factor != before).sum()) == 1
    for slot in range(arena.layout.workloads[0].slots):
        right = arena.inputs(0, slot)["x"].double() * factor.double()
        assert torch.equal(arena.truth(0, slot)[0].expected, right)


def test_a_touch_changes_an_element_in_every_row_the_truth_follows_and_both_are_undone(arena: Arena) -> None:
    before, right = arena.inputs(0, 1)["x"].clone(), arena.truth(0, 1)[0].expected.clone()
    assert arena.touch(0, 1, same=False)
    x = arena.inputs(0, 1)["x"]
    assert (x != before).sum(-1).max() == 1
    assert (x != before).any(-1).float().mean() > 0.9
    assert torch.equal(arena.truth(0, 1)[0].expected, x.double() * arena.inputs(0, 1)["factor"].double())
    arena.restore()
    assert torch.equal(x, before)
    assert arena.touch(0, 1, same=True)
    assert torch.equal(x, before)
    assert torch.equal(arena.truth(0, 1)[0].expected, right)


def test_the_judge_still_sees_what_a_runner_writes_to_its_outputs(arena: Arena) -> None:
    outputs = Outputs(arena.layout)
    try:
        with mmap.mmap(outputs.block.fd, arena.layout.output_bytes) as theirs:
            theirs[:] = bytes(len(theirs))
        assert all(bool((t == 0).all()) for t in outputs.read(0, 1).values())
        outputs.poison(0, 0)
        assert outputs.read(0, 0)["out"].isnan().all()
        assert not outputs.read(0, 1)["out"].isnan().any()
    finally:
        outputs.close()


@pytest.mark.parametrize("dtype", sorted(DTYPE_BYTES))
def test_poison_is_no_answer_in_any_type(dtype: str) -> None:
    """NaN, -1 or the largest value in one slot, a number in the next: what stays so in both was never written."""
    target = a_target(dtypes={"T": (dtype,)})
    workload = Workload(name="w", role="check", device="cpu", axes={"N": 5}, dtypes={"T": dtype})
    outputs = Outputs(lay_out(target, (workload,), {"w": 2}))
    try:
        for slot, byte in ((0, 0xFF), (1, 0x5A)):
            outputs.poison(0, slot)
            assert (outputs.read(0, slot)["y"].view(torch.uint8) == byte).all()
        if outputs.read(0, 0)["y"].is_floating_point():
            assert outputs.read(0, 0)["y"].isnan().all()
            assert not outputs.read(0, 1)["y"].isnan().any()
    finally:
        outputs.close()


def test_a_machine_without_room_for_the_inputs_says_so(tiny: Target, tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        with pytest.raises(JudgeError, match="shared memory") as caught:
            Arena(tiny, tiny.select("cpu", "search"), Oracle(tiny, tmp_path, seed=1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "memory" in caught.value.remedy or "limit" in caught.value.remedy
