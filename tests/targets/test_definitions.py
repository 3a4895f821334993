"""The shipped targets: right references, honest baselines, inputs that hold what their names promise."""

import itertools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from kernelevolve import targets
from kernelevolve.schema import ErrorRule, IndexRule, Target, Workload

SHIPPED = Path(__file__).parents[2] / "targets"
TARGETS = {name: targets.load(name, SHIPPED) for name in ("topk", "request_broadcast", "grouped_gemm")}
CPU = [(t, w) for t in TARGETS.values() for w in t.select("cpu", "search", "held_out", "check")]
CHECKS = [(t, w) for t, w in CPU if w.role == "check"]

every_cpu_workload = pytest.mark.parametrize(("target", "workload"), CPU, ids=[f"{t.name}-{w.name}" for t, w in CPU])
every_check = pytest.mark.parametrize(("target", "workload"), CHECKS, ids=[f"{t.name}-{w.name}" for t, w in CHECKS])
every_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)

Argument = torch.Tensor | int


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Small work on a shared machine: waking a second thread costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def module(target: Target, file: str) -> ModuleType:
    made = ModuleType(file.removesuffix(".py"))
    exec(compile(target.files[file], f"{target.name}/{file}", "exec"), made.__dict__)
    return made


def make(target: Target, workload: Workload, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    made = module(target, "inputs.py").make(workload.inputs, dict(workload.axes), dict(workload.dtypes), generator)
    assert isinstance(made, dict)
    return made


def arguments(target: Target, workload: Workload, seed: int = 0) -> list[Argument]:
    made = make(target, workload, seed)
    return [made[i.name] if i.axis is None else workload.axes[i.axis] for i in target.inputs]


def reference(target: Target, given: list[Argument], dtype: torch.dtype | None = None) -> tuple[torch.Tensor, ...]:
    cast = [a.to(dtype) if dtype and isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in given]
    found = module(target, "reference.py").reference(*cast)
    return found if isinstance(found, tuple) else (found,)


def outputs(target: Target, workload: Workload) -> list[torch.Tensor]:
    """Outputs that hold what no right answer holds: NaN, or a position out of range."""
    made = []
    for output in target.outputs:
        dtype = getattr(torch, target.dtype(output, workload))
        made.append(
            torch.full(target.shape(output, workload), math.nan if dtype.is_floating_point else -1, dtype=dtype)
        )
    return made


def same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return (a == b) | (a.isnan() & b.isnan())


def assert_right(target: Target, workload: Workload, given: list[Argument], found: list[torch.Tensor]) -> None:
    by_name: dict[str, Argument] = dict(zip([i.name for i in target.inputs], given, strict=True))
    by_name |= dict(zip([o.name for o in target.outputs], found, strict=True))
    truths, honest = reference(target, given, torch.float64), reference(target, given)
    for output, actual, truth, plain in zip(target.outputs, found, truths, honest, strict=True):
        if isinstance(output.rule, IndexRule):
            source, values = by_name[output.rule.source], by_name[output.rule.values]
            assert isinstance(source, torch.Tensor)
            assert isinstance(values, torch.Tensor)
            assert same(source.gather(-1, actual), values).all()
            assert all(len(set(row)) == len(row) for row in actual.tolist())
        elif isinstance(output.rule, ErrorRule):
            error = torch.where(same(actual.double(), truth), 0.0, (actual.double() - truth).abs())
            yardstick = torch.where(truth.isfinite(), (plain.double() - truth).abs(), 0.0).amax(-1, keepdim=True)
            largest = torch.where(truth.isfinite(), truth.abs(), 0.0).amax(-1, keepdim=True)
            floor = output.rule.floor_ulps * torch.finfo(actual.dtype).eps * largest
            assert (error <= torch.maximum(output.rule.slack * yardstick, floor)).all(), workload.name
        else:
            assert same(actual.double(), truth).all()


# --- references against arithmetic that anyone can follow ---


def brute_topk(x: torch.Tensor, k: int) -> list[list[float]]:
    """Largest first, NaN above all."""
    order: Callable[[float], tuple[bool, float]] = lambda v: (math.isnan(v), 0.0 if math.isnan(v) else v)  # noqa: E731
    return [sorted(row, key=order, reverse=True)[:k] for row in x.tolist()]


@pytest.mark.parametrize("case", ["scores", "ties", "special", "descending"])
def test_topk_is_the_head_of_a_sorted_row(case: str) -> None:
    target = TARGETS["topk"]
    generator = torch.Generator().manual_seed(1)
    x = module(target, "inputs.py").make(case, {"batch": 3, "n": 40, "k": 7}, {"T": "float32"}, generator)["x"]
    values, indices = reference(target, [x, 7])
    assert same(values, torch.tensor(brute_topk(x, 7))).all()
    assert same(x.gather(-1, indices), values).all()


def test_request_broadcast_is_a_sum_over_both_embeddings() -> None:
    target = TARGETS["request_broadcast"]
    axes = {"candidates": 5, "users": 3, "m": 2, "k_cand": 3, "k_user": 4, "n": 2}
    generator = torch.Generator().manual_seed(1)
    made = module(target, "inputs.py").make("shuffled", axes, {"T": "float64"}, generator)
    e_cand, e_user, user_of, w_cand, w_user = (made[i.name] for i in target.inputs)
    (out,) = reference(target, [e_cand, e_user, user_of, w_cand, w_user])
    for b, row, column in itertools.product(range(5), range(2), range(2)):
        expected = sum(float(w_cand[row, i] * e_cand[b, i, column]) for i in range(3))
        expected += sum(float(w_user[row, i] * e_user[user_of[b], i, column]) for i in range(4))
        assert float(out[b, row, column]) == pytest.approx(expected, abs=1e-12)


def test_grouped_gemm_multiplies_each_row_with_its_groups_weights() -> None:
    target = TARGETS["grouped_gemm"]
    generator = torch.Generator().manual_seed(1)
    axes = {"groups": 4, "rows": 6, "k": 3, "n": 2}
    made = module(target, "inputs.py").make("uneven", axes, {"T": "float64"}, generator)
    a, offsets, b = made["a"], made["offsets"].tolist(), made["b"]
    (out,) = reference(target, [a, made["offsets"], b])
    for row, column in itertools.product(range(6), range(2)):
        (group,) = [g for g in range(4) if offsets[g] <= row < offsets[g + 1]]
        expected = sum(float(a[row, i] * b[group, i, column]) for i in range(3))
        assert float(out[row, column]) == pytest.approx(expected, abs=1e-12)


@every_check
def test_a_reference_leaves_its_inputs_alone(target: Target, workload: Workload) -> None:
    given = arguments(target, workload)
    copies = [a.clone() if isinstance(a, torch.Tensor) else a for a in given]
    reference(target, given)
    for now, before in zip(given, copies, strict=True):
        assert same(torch.as_tensor(now), torch.as_tensor(before)).all()


# --- baselines ---


@every_cpu_workload
def test_every_eager_baseline_is_right(target: Target, workload: Workload) -> None:
    given = arguments(target, workload)
    functions = module(target, "baselines.py")
    for baseline in target.baselines:
        if "cpu" not in baseline.devices or baseline.compiled:
            continue
        found = outputs(target, workload)
        addresses = [tensor.data_ptr() for tensor in found]
        getattr(functions, baseline.name)(*given, *found)
        assert [tensor.data_ptr() for tensor in found] == addresses, "a baseline must write in place"
        assert_right(target, workload, given, found)


@every_check
def test_baselines_for_compilation_and_for_a_gpu_are_right_as_plain_functions(
    target: Target, workload: Workload
) -> None:
    given = arguments(target, workload)
    functions = module(target, "baselines.py")
    for baseline in target.baselines:
        if baseline.compiled or "cpu" not in baseline.devices:
            found = outputs(target, workload)
            getattr(functions, baseline.name)(*given, *found)
            assert_right(target, workload, given, found)


def test_the_comparison_of_these_tests_can_fail() -> None:
    target = TARGETS["grouped_gemm"]
    workload = target.workload("cpu-check-even")
    given = arguments(target, workload)
    wrong = reference(target, given)[0].clone()
    wrong[3] *= 1.001
    with pytest.raises(AssertionError):
        assert_right(target, workload, given, [wrong])


# --- inputs ---


@every_cpu_workload
def test_inputs_are_what_the_target_declares(target: Target, workload: Workload) -> None:
    made = make(target, workload)
    for tensor in target.inputs:
        if tensor.shape is not None:
            found = made[tensor.name]
            assert tuple(found.shape) == target.shape(tensor, workload)
            assert found.dtype == getattr(torch, target.dtype(tensor, workload))
            assert found.is_contiguous()


@every_check
def test_inputs_follow_the_generator_alone(target: Target, workload: Workload) -> None:
    torch.manual_seed(1)
    first = make(target, workload, seed=3)
    torch.manual_seed(2)
    again, other = make(target, workload, seed=3), make(target, workload, seed=4)
    assert all(torch.equal(first[n].nan_to_num(), again[n].nan_to_num()) for n in first)
    assert not all(torch.equal(first[n].nan_to_num(), other[n].nan_to_num()) for n in first)


@every_target
def test_every_case_of_inputs_is_used_and_every_used_case_exists(target: Target) -> None:
    assert {w.inputs for w in target.workloads} == set(module(target, "inputs.py").CASES)


def topk_input(case: str, n: int = 2000, k: int = 50, dtype: str = "float32") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    made = module(TARGETS["topk"], "inputs.py").make(case, {"batch": 6, "n": n, "k": k}, {"T": dtype}, generator)["x"]
    assert isinstance(made, torch.Tensor)
    return made


@pytest.mark.parametrize("case", ["scores", "ties", "spikes"])
def test_ties_reach_across_the_kth_place(case: str) -> None:
    x = topk_input(case)
    kth = x.topk(50, dim=-1).values[:, -1:]
    assert ((x == kth).sum(-1) > (x.topk(50, dim=-1).values == kth).sum(-1)).any()


def test_timed_rows_still_differ_from_each_other() -> None:
    for workload in TARGETS["topk"].select("cpu", "search", "held_out"):
        x = make(TARGETS["topk"], workload)["x"]
        top = x.topk(workload.axes["k"], dim=-1).values
        assert len(torch.unique(top, dim=0)) == len(top)


def test_special_rows_hold_nan_of_both_signs_infinities_and_signed_zeros() -> None:
    for dtype in ("float32", "bfloat16", "float16"):
        x = topk_input("special", dtype=dtype)
        assert set(x[x.isnan()].signbit().tolist()) == {True, False}
        assert (x == math.inf).any()
        assert (x == -math.inf).any()
        assert set(x[x == 0].signbit().tolist()) == {True, False}
        assert x[0].isnan().all()
        assert not x[1:].isnan().all(-1).any()


def test_subnormal_rows_are_subnormal_and_vary() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        x = topk_input("subnormal", dtype=str(dtype).removeprefix("torch."))
        assert (x.abs() <= torch.finfo(dtype).smallest_normal).all()
        assert len(x.unique()) > 20


def test_one_tile_holds_the_whole_answer_at_an_end_of_the_row() -> None:
    indices = topk_input("one_tile").topk(50, dim=-1).indices
    assert (indices[0::2] >= 1950).all()
    assert (indices[1::2] < 50).all()


def test_sorted_rows_are_sorted_both_ways() -> None:
    assert (topk_input("ascending").diff(dim=-1) >= 0).all()
    assert (topk_input("descending").diff(dim=-1) <= 0).all()


def test_requests_are_uneven_sorted_and_leave_users_out() -> None:
    target = TARGETS["request_broadcast"]
    for workload in target.select("cpu", "search", "held_out"):
        user_of = make(target, workload)["user_of"]
        counts = user_of.bincount(minlength=workload.axes["users"])
        users = workload.axes["users"]
        assert (user_of.diff() >= 0).all()
        assert (counts == 0).sum() == max(1, users // 8)
        assert counts.max() > counts[counts > 0].min()


def test_a_shuffled_batch_is_not_sorted() -> None:
    target = TARGETS["request_broadcast"]
    assert (make(target, target.workload("cpu-check-shuffled"))["user_of"].diff() < 0).any()
    assert make(target, target.workload("cpu-check-one-user"))["user_of"].unique().tolist() == [5]
    assert make(target, target.workload("cpu-check-nobody-shares"))["user_of"].tolist() == list(range(8, -1, -1))


def test_groups_are_uneven_and_some_are_empty() -> None:
    target = TARGETS["grouped_gemm"]
    for workload in target.select("cpu", "search", "held_out"):
        offsets = make(target, workload)["offsets"]
        sizes = offsets.diff()
        assert offsets[0] == 0
        assert offsets[-1] == workload.axes["rows"]
        assert (sizes == 0).sum() == max(1, workload.axes["groups"] // 8)
        assert sizes.max() > 2 * sizes[sizes > 0].float().median()


def test_group_cases_put_rows_where_they_say() -> None:
    target = TARGETS["grouped_gemm"]
    sizes = {w.inputs: make(target, w)["offsets"].diff() for w in target.select("cpu", "check")}
    assert int(sizes["even"].max() - sizes["even"].min()) <= 1
    assert int((sizes["one_group"] > 0).sum()) == 1
    assert sizes["empty_ends"][[0, -1]].tolist() == [0, 0]
    zeros = make(target, target.workload("cpu-check-magnitudes-zero-rows"))["a"]
    assert int((zeros == 0).all(-1).sum()) >= 4


# --- workloads ---


@every_target
def test_search_and_held_out_workloads_share_no_axes(target: Target) -> None:
    for device in ("cpu", "gpu"):
        timed = target.select("cpu" if device == "cpu" else "gpu", "search", "held_out")
        shown = [w.axes for w in timed if w.role == "search"]
        assert not [w.name for w in timed if w.role == "held_out" and w.axes in shown]
        assert len(timed) <= 10


@every_target
def test_each_timed_cpu_type_spans_a_box_with_all_its_corners(target: Target) -> None:
    timed = target.select("cpu", "search", "held_out")
    for dtype in {w.dtypes["T"] for w in timed}:
        points = [tuple(w.axes.values()) for w in timed if w.dtypes["T"] == dtype]
        assert any(_spans(points, low, high) for low, high in itertools.combinations(sorted(points), 2)), dtype


def _spans(points: list[tuple[int, ...]], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    """Whether the box between two points is two-dimensional at least, and all its corners are there."""
    varying = sum(a != b for a, b in zip(low, high, strict=True))
    return varying >= 2 and all(corner in points for corner in itertools.product(*zip(low, high, strict=True)))


def test_the_headline_of_topk_is_searched() -> None:
    headline = TARGETS["topk"].workload("cpu-f32-128x16384-k64")
    assert (headline.role, headline.axes) == ("search", {"batch": 128, "n": 16384, "k": 64})


@every_target
def test_compulsory_bytes_never_exceed_all_bytes(target: Target) -> None:
    for workload in target.workloads:
        every = sum(target.tensor_bytes(t, workload) for t in (*target.inputs, *target.outputs))
        assert 0 < target.compulsory_bytes(workload) <= every
