"""Right answers pass, wrong ones are found and described the way a kernel's author would describe them."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve.harness.correctness import SAMPLE, classify, compare, sampled, wrong_errors, wrong_indices
from kernelevolve.harness.oracle import Truth, allowed_error
from kernelevolve.schema import (
    Baseline,
    CostModel,
    ErrorRule,
    ExactRule,
    IndexRule,
    Input,
    NumericDifference,
    NumericRule,
    Output,
    Pattern,
    Target,
    Workload,
)

NAN, INF = math.nan, math.inf


def a_target(rule: NumericRule, dtype: str = "float32") -> Target:
    """One output `y` of shape (R, N) beside an input `x` of the same shape."""
    return Target(
        name="t", summary="", source="", axes={"R": "", "N": ""}, dtypes={},
        inputs=(Input(name="x", shape=("R", "N"), dtype=dtype),),
        outputs=(Output(name="y", shape=("R", "N"), dtype=dtype, rule=rule),),
        workloads=(), baselines=(Baseline(name="b", summary=""),), cost=CostModel(operations="N"), files={},
    )  # fmt: skip


def differences(rule: NumericRule, actual: torch.Tensor, truth: Truth) -> tuple[NumericDifference, ...]:
    workload = Workload(name="w", role="check", device="cpu", axes={})
    return compare(a_target(rule), workload, {}, {"y": actual}, (truth,))


# --- exact ---


@pytest.mark.parametrize(
    ("expected", "actual", "right"),
    [
        ([1.0, -0.0], [1.0, 0.0], True),
        ([NAN, 1.0], [NAN, 1.0], True),
        ([NAN, 1.0], [0.0, 1.0], False),
        ([0.0, 1.0], [NAN, 1.0], False),
        ([INF, -INF], [INF, -INF], True),
        ([INF, 1.0], [-INF, 1.0], False),
        ([INF, 1.0], [3e38, 1.0], False),
        ([1.0, 1.0], [1.0, 1.0000001], False),
    ],
)
def test_the_exact_rule_wants_equal_values_and_nan_where_nan_belongs(
    expected: list[float], actual: list[float], right: bool
) -> None:
    truth = Truth(torch.tensor([expected]), None)
    assert (differences(ExactRule(), torch.tensor([actual]), truth) == ()) is right


def test_the_exact_rule_holds_for_whole_numbers_and_booleans() -> None:
    for values in ([3, -1, 0], [True, False, True]):
        truth = Truth(torch.tensor([values]), None)
        assert differences(ExactRule(), torch.tensor([values]), truth) == ()
        (found,) = differences(ExactRule(), torch.tensor([[*values[:2], 1 - values[2]]]), truth)
        assert (found.wrong, found.total, found.first_index) == (1, 3, (0, 2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_the_exact_rule_holds_for_narrow_types(dtype: torch.dtype) -> None:
    right = torch.tensor([[0.5, 1.0, -2.0, 0.0]]).to(dtype)
    other = torch.tensor([[0.5, 1.0, -2.0, 1.0]]).to(dtype)
    assert differences(ExactRule(), right.clone(), Truth(right, None)) == ()
    (found,) = differences(ExactRule(), other, Truth(right, None))
    assert found.first_index == (0, 3)


# --- index ---


def topk(x: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    values, indices = x.topk(k, dim=-1)
    return values, indices


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3), min_size=4, max_size=12), st.randoms(use_true_random=False))
def test_equal_elements_may_be_named_in_any_order(row: list[int], rng: object) -> None:
    """Whatever order a kernel finds ties in, its positions are right if they give the values, each once."""
    x = torch.tensor([row], dtype=torch.float32)
    places = list(range(len(row)))
    rng.shuffle(places)  # type: ignore[attr-defined]
    places.sort(key=lambda place: -row[place])
    indices = torch.tensor([places[:4]])
    assert not wrong_indices(x, torch.gather(x, -1, indices), indices).any()


def test_a_repeated_index_is_refused_where_it_repeats() -> None:
    x = torch.tensor([[5.0, 5.0, 1.0], [7.0, 2.0, 2.0]])
    values, indices = topk(x, 2)
    assert not wrong_indices(x, values, indices).any()
    twice = torch.tensor([[1, 1], [0, 1]])
    assert wrong_indices(x, values, twice).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("index", [-1, 3, 2**40, -(2**40)])
def test_an_index_outside_its_row_is_refused(index: int) -> None:
    x = torch.tensor([[5.0, 4.0, 5.0]])
    values = torch.tensor([[5.0, 5.0]])
    assert wrong_indices(x, values, torch.tensor([[0, index]])).tolist() == [[False, True]]


def test_an_index_of_another_value_is_refused() -> None:
    x = torch.tensor([[5.0, 4.0, 3.0]])
    assert wrong_indices(x, torch.tensor([[5.0, 4.0]]), torch.tensor([[0, 2]])).tolist() == [[False, True]]


def test_an_index_may_name_a_nan_for_a_nan() -> None:
    x = torch.tensor([[NAN, 4.0, NAN]])
    values = torch.tensor([[NAN, NAN]])
    assert not wrong_indices(x, values, torch.tensor([[2, 0]])).any()
    assert wrong_indices(x, values, torch.tensor([[2, 1]])).tolist() == [[False, True]]


def test_32_bit_indices_are_judged_like_64_bit_ones() -> None:
    x = torch.randn(3, 50)
    values, indices = topk(x, 8)
    assert not wrong_indices(x, values, indices.int()).any()
    assert wrong_indices(x, values, indices.int() + 1).any()


def test_an_index_rule_compares_with_the_values_that_the_candidate_gave() -> None:
    target = a_target(ExactRule()).model_copy(
        update={
            "outputs": (
                Output(name="values", shape=("R", 2), dtype="float32", rule=ExactRule()),
                Output(name="indices", shape=("R", 2), dtype="int64", rule=IndexRule(source="x", values="values")),
            )
        }
    )
    x = torch.tensor([[1.0, 3.0, 2.0, 3.0]])
    truths = (Truth(torch.tensor([[3.0, 3.0]]), None), Truth(torch.tensor([[1, 3]]), None))
    workload = Workload(name="w", role="check", device="cpu", axes={})

    def found(indices: list[int]) -> list[str]:
        outputs = {"values": torch.tensor([[3.0, 3.0]]), "indices": torch.tensor([indices])}
        return [d.output for d in compare(target, workload, {"x": x}, outputs, truths)]

    assert found([3, 1]) == found([1, 3]) == []
    assert found([1, 1]) == found([1, 2]) == ["indices"]


# --- error ---


def truth_of(right: torch.Tensor, honest: torch.Tensor, dtype: torch.dtype = torch.float32) -> Truth:
    return Truth(right, allowed_error(right, honest, dtype, ErrorRule()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_an_honest_sum_in_another_order_passes(dtype: torch.dtype) -> None:
    x = torch.randn(16, 4096, generator=torch.Generator().manual_seed(1)).to(dtype)
    right, honest = x.double().cumsum(-1), x.float().cumsum(-1).to(dtype)
    truth = truth_of(right, honest, dtype)
    backwards = (x.float().sum(-1, keepdim=True) - x.float().flip(-1).cumsum(-1).flip(-1) + x.float()).to(dtype)
    assert not wrong_errors(honest, truth).any()
    assert not wrong_errors(backwards, truth).any()


@pytest.mark.parametrize("k", [64, 512, 4096])
def test_a_product_of_matrices_in_blocks_passes_and_one_in_lower_precision_does_not(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    a, b = torch.randn(24, k, generator=generator), torch.randn(k, 40, generator=generator)
    truth = truth_of(a.double() @ b.double(), a @ b)
    block = k // 16
    blocks = sum(a[:, i : i + block] @ b[i : i + block] for i in range(0, k, block))
    assert isinstance(blocks, torch.Tensor)
    assert not wrong_errors(blocks, truth).any()
    assert wrong_errors(truncated(a, 10) @ truncated(b, 10), truth).any(), "tf32 for float32"
    assert wrong_errors((a.bfloat16() @ b.bfloat16()).float(), truth).any(), "bfloat16 for float32"


def truncated(x: torch.Tensor, bits: int) -> torch.Tensor:
    """float32 with so many bits of mantissa, as tensor cores read it."""
    return (x.view(torch.int32) & -(1 << (23 - bits))).view(torch.float32)


def test_a_small_row_beside_a_huge_one_is_judged_by_its_own_scale() -> None:
    x = torch.randn(2, 256, generator=torch.Generator().manual_seed(2))
    x[0] *= 1e10
    truth = truth_of(2 * x.double(), 2 * x)
    wrong = 2 * x
    wrong[1] += 1e-3
    found = differences(ErrorRule(), wrong, truth)
    assert [(d.pattern, d.first_index) for d in found] == [("one_row", (1, 0))]


def test_a_row_of_zeros_must_be_zero() -> None:
    zeros = torch.zeros(2, 8)
    truth = truth_of(zeros.double(), zeros)
    assert not wrong_errors(zeros, truth).any()
    assert wrong_errors(torch.full((2, 8), 1e-20), truth).all()


def test_nan_and_infinities_have_to_be_met_exactly() -> None:
    right = torch.tensor([[NAN, INF, -INF, 1.0]], dtype=torch.float64)
    truth = truth_of(right, right.float())
    assert not wrong_errors(right.float(), truth).any()
    other = torch.tensor([[1.0, NAN, INF, INF]])
    assert wrong_errors(other, truth).all()
    assert wrong_errors(torch.tensor([[0.0, 3.4e38, -3.4e38, NAN]]), truth).all()


def test_an_honest_overflow_does_not_loosen_the_rest_of_the_row() -> None:
    right = torch.tensor([[1e5, 1.0, 2.0]], dtype=torch.float64)
    truth = truth_of(right, right.half(), torch.float16)
    assert truth.allowed is not None
    assert float(truth.allowed) < 1e3
    assert math.isfinite(float(truth.allowed))


@pytest.mark.parametrize("shape", [(), (1,), (3, 0), (0, 3)])
def test_a_single_number_and_an_empty_tensor_have_a_rule_too(shape: tuple[int, ...]) -> None:
    x = torch.rand((*shape, 1000), generator=torch.Generator().manual_seed(3))
    right, honest = x.double().sum(-1), x.sum(-1)
    truth = truth_of(right, honest)
    halves = x[..., :500].sum(-1) + x[..., 500:].sum(-1)
    assert differences(ErrorRule(), halves, truth) == ()
    if right.numel():
        (found,) = differences(ErrorRule(), halves + 1, truth)
        assert found.wrong == found.total == 1
        assert found.largest_error == pytest.approx(1, rel=1e-3)


@settings(deadline=None, max_examples=60)
@given(st.floats(-1e30, 1e30), st.integers(0, 4))
def test_a_few_units_in_the_last_place_are_always_allowed(value: float, ulps: int) -> None:
    x = torch.tensor([[value]]).float()
    truth = truth_of(x.double(), x)
    for _ in range(ulps // 2):
        x = torch.nextafter(x, torch.tensor(INF))
    assert not wrong_errors(x, truth).any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_a_visible_error_anywhere_is_found_and_named(rows: int, n: int, seed: int, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, n, generator=generator)
    truth = truth_of(2 * x.double(), 2 * x)
    row, column = (int(torch.randint(0, high, (), generator=generator)) for high in (rows, n))
    wrong = 2 * x
    wrong[row, column] += size * float(wrong[row].abs().max())
    (found,) = differences(ErrorRule(), wrong, truth)
    assert (found.wrong, found.total, found.first_index) == (1, rows * n, (row, column))
    assert found.allowed_error is not None
    assert found.largest_error is not None
    assert found.largest_error > found.allowed_error
    assert all(text in found.message for text in ("y differs on w", f"1 of {rows * n}", found.expected, found.actual))
    assert found.advice


# --- patterns: what a realistic mistake looks like ---

X = torch.randn(32, 300, generator=torch.Generator().manual_seed(4))
RIGHT = 2 * X


def poison(*index: slice | int) -> torch.Tensor:
    actual = RIGHT.clone()
    actual.view(torch.int32)[index] = -1
    return actual


def changed(*index: slice | int | torch.Tensor, by: float = 1.0) -> torch.Tensor:
    actual = RIGHT.clone()
    actual[index] += by * (1 + torch.arange(actual[index].numel()).view(actual[index].shape) % 7)
    return actual


def some(share: float) -> torch.Tensor:
    return torch.rand(RIGHT.shape, generator=torch.Generator().manual_seed(5)) < share


MISTAKES: dict[str, tuple[Pattern, torch.Tensor]] = {
    "nothing is written": ("poison", poison()),
    "the last partial block is not written": ("poison", poison(slice(None), slice(296, None))),
    "one row is not written": ("poison", poison(7)),
    "0/0 in one column": ("nan", RIGHT.where(torch.arange(300) != 5, torch.tensor(NAN))),
    "NaN where a row is read past its end": ("nan", RIGHT.where(torch.arange(300) < 290, torch.tensor(NAN))),
    "the last partial vector is computed wrongly": ("tail", changed(slice(None), slice(296, None))),
    "the last element of every row is": ("tail", changed(slice(None), 299)),
    "the last rows are": ("tail", changed(slice(28, None))),
    "the first row is skipped": ("one_row", changed(0)),
    "a row in the middle has one wrong element": ("one_row", changed(13, 250)),
    "every fourth row goes to a thread that does nothing": ("some_rows", changed(slice(None, None, 4))),
    "half of the rows": ("some_rows", changed(slice(0, 16))),
    "the factor is missing": ("scale", X),
    "the factor is applied twice": ("scale", 2 * RIGHT),
    "the sign is wrong": ("scale", -RIGHT),
    "another operation": ("everything", X + 5),
    "rows and columns are mixed up": ("everything", RIGHT.flatten().roll(17).view(RIGHT.shape)),
    "zeros": ("everything", torch.zeros_like(RIGHT)),
    "a race": ("scattered", changed(some(0.02))),
    "too little precision here and there": ("scattered", torch.where(some(0.4), RIGHT.bfloat16(), RIGHT)),
    "too little precision everywhere": ("scattered", RIGHT.bfloat16().float()),
}


@pytest.mark.parametrize(("pattern", "actual"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_described_by_its_pattern(pattern: Pattern, actual: torch.Tensor) -> None:
    (found,) = differences(ErrorRule(), actual, truth_of(RIGHT.double(), RIGHT))
    assert found.pattern == pattern
    assert f"({pattern})" in found.message


def test_every_pattern_has_a_mistake_that_shows_it() -> None:
    assert {pattern for pattern, _ in MISTAKES.values()} == set(Pattern.__args__)  # type: ignore[attr-defined]


def test_unwritten_whole_numbers_are_poison_too() -> None:
    expected = torch.arange(40).view(4, 10)
    actual = expected.clone()
    actual[2] = -1
    assert classify(actual != expected, actual, expected) == "poison"


def test_one_wrong_row_of_a_vector_is_no_row() -> None:
    expected = torch.arange(1.0, 101.0, dtype=torch.float64)
    actual = expected.clone()
    actual[3] += 1
    assert classify(actual != expected, actual, expected) == "scattered"


def a_selection(rows: int, n: int, k: int) -> tuple[Target, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A target that selects, with its input and its right outputs."""
    tensor = a_target(ExactRule())
    values = tensor.outputs[0].model_copy(update={"name": "values"})
    indices = values.model_copy(update={"name": "indices", "rule": IndexRule(source="x", values="values")})
    x = torch.rand(rows, n, generator=torch.Generator().manual_seed(1))
    return (
        tensor.model_copy(update={"outputs": (values, indices)}),
        {"x": x},
        dict(zip(("values", "indices"), torch.topk(x, k), strict=True)),
    )


def test_a_sample_is_a_run_of_rows_of_everything_and_finds_what_is_left_out_often() -> None:
    target, inputs, right = a_selection(512, 400, 256)
    truths = tuple(Truth(tensor.clone(), None) for tensor in right.values())
    workload, rng = Workload(name="w", role="check", device="cpu", axes={}), random.Random(2)
    for _ in range(20):
        part = sampled(target, inputs, right, truths, rng)
        assert part is not None
        assert {len(t) for t in (*part[0].values(), *part[1].values(), *(truth.expected for truth in part[2]))} == {
            SAMPLE // 256
        }
        assert compare(target, workload, *part) == ()
    right["values"][256:] = 0.0  # half of the work is left out
    found = [bool(compare(target, workload, *sampled(target, inputs, right, truths, rng))) for _ in range(40)]
    assert 8 < sum(found) < 36


def test_what_is_small_or_has_no_rows_in_common_is_compared_as_a_whole() -> None:
    target, inputs, right = a_selection(8, 400, 256)
    truths = tuple(Truth(tensor, None) for tensor in right.values())
    assert sampled(target, inputs, right, truths, random.Random(1)) is None
    large = {"values": torch.zeros(1 << 18), "indices": torch.zeros(3, 1 << 18)}
    truths = tuple(Truth(tensor, None) for tensor in large.values())
    assert sampled(target, inputs, large, truths, random.Random(1)) is None
