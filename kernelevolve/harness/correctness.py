"""Is an answer right? And where it isn't: where, by how much, in which pattern."""

import random

import torch

from kernelevolve.harness.blocks import POISON
from kernelevolve.harness.oracle import Truth
from kernelevolve.schema import ErrorRule, IndexRule, NumericDifference, Output, Pattern, Target, Workload

Tensors = dict[str, torch.Tensor]

_ADVICE: dict[Pattern, str] = {
    "poison": "these elements were never written: check the bounds of the loops and of the grid",
    "nan": "NaN where none belongs: look for 0/0, inf - inf, or a read outside the input",
    "tail": "only the end of an axis is wrong: handle the last, partial block or vector",
    "one_row": "one row is wrong: look at what is special about it (the first, the last, an empty or a full group)",
    "some_rows": "whole rows are wrong and others right: look at how rows are dealt to threads or groups",
    "scale": "everything is off by one factor: a missing or doubled scale",
    "everything": "nearly everything is wrong: check strides, the order of arguments and the element type",
    "scattered": "errors without a visible order: a race, a tie, or too little precision in the sum",
}

SAMPLE = 1 << 15
"""Elements of an output that are compared where a sample will do."""

_ROUNDING = 4.0
"""Times the allowed error that a sum in an unlucky order may reach."""

_PRECISION = "sum in float32 with several partial sums, and round to the element type only at the end"


def sampled(
    target: Target, inputs: Tensors, outputs: Tensors, truths: tuple[Truth, ...], rng: random.Random
) -> tuple[Tensors, Tensors, tuple[Truth, ...]] | None:
    """A random run of rows (indices of the first axis) of all of it, `SAMPLE` elements or so.

    None where that is no less than everything, or where outputs have no rows in common. Whoever leaves out enough to be
    faster leaves out rows that are looked at sooner or later, and can't know which.
    """
    rows = {output.shape[0] if output.ndim else 0 for output in outputs.values()}
    largest = max(output.numel() for output in outputs.values())
    if len(rows) != 1 or largest <= SAMPLE or (count := rows.pop()) < 2:
        return None
    some = max(1, count * SAMPLE // largest)
    start = rng.randrange(count - some + 1)

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[start : start + some] if tensor.ndim and tensor.shape[0] == count else tensor

    sources = {o.rule.source for o in target.outputs if isinstance(o.rule, IndexRule)}
    return (
        {name: cut(tensor) if name in sources else tensor for name, tensor in inputs.items()},
        {name: cut(tensor) for name, tensor in outputs.items()},
        tuple(Truth(cut(t.expected), None if t.allowed is None else cut(t.allowed)) for t in truths),
    )


def compare(
    target: Target, workload: Workload, inputs: Tensors, outputs: Tensors, truths: tuple[Truth, ...]
) -> tuple[NumericDifference, ...]:
    """Every output that breaks its rule. `inputs` and `outputs` are by name, `truths` in the target's order."""
    found = []
    for output, truth in zip(target.outputs, truths, strict=True):
        actual = outputs[output.name]
        if isinstance(output.rule, IndexRule):
            wrong = wrong_indices(inputs[output.rule.source], outputs[output.rule.values], actual)
        elif isinstance(output.rule, ErrorRule):
            wrong = wrong_errors(actual, truth)
        else:
            wrong = ~_same(actual, truth.expected)
        if bool(wrong.any()):
            found.append(describe(output, workload, wrong, actual, truth))
    return tuple(found)


def wrong_errors(actual: torch.Tensor, truth: Truth) -> torch.Tensor:
    """Mask of elements further from the truth than allowed; NaN matches NaN, an infinity itself."""
    value = actual.to(torch.float64)
    near = (value - truth.expected).abs() <= (truth.allowed if truth.allowed is not None else 0.0)
    return ~(near | _same(value, truth.expected))


def wrong_indices(source: torch.Tensor, values: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
    """Mask of indices that are out of range, repeated in their row, or don't point at their value."""
    size = source.shape[-1]
    outside = (indices < 0) | (indices >= size)
    safe = indices.clamp(0, max(size - 1, 0))
    elsewhere = ~_same(torch.gather(source, -1, safe), values)
    order = torch.argsort(indices, dim=-1, stable=True)
    ranked = torch.gather(indices, -1, order)
    again = torch.zeros_like(outside)
    again[..., 1:] = ranked[..., 1:] == ranked[..., :-1]
    repeated = torch.zeros_like(outside).scatter(-1, order, again)
    return outside | elsewhere | repeated


def _same(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    equal = a == b
    return equal | (torch.isnan(a) & torch.isnan(b)) if a.is_floating_point() else equal


def describe(
    output: Output, workload: Workload, wrong: torch.Tensor, actual: torch.Tensor, truth: Truth
) -> NumericDifference:
    """Put a mask of wrong elements into words."""
    pattern = classify(wrong, actual, truth.expected)
    first = tuple(int(i) for i in wrong.nonzero()[0])
    error = (actual.to(torch.float64) - truth.expected.to(torch.float64)).abs()
    error = torch.where(wrong & torch.isfinite(error), error, 0.0)
    allowed = None if truth.allowed is None else float(truth.allowed.expand(wrong.shape)[first])
    wrong_count, total = int(wrong.sum()), wrong.numel()
    expected, got = _text(truth.expected[first]), _text(actual[first])
    if isinstance(output.rule, IndexRule):
        expected = f"a position of values{list(first)}, once"
    rounding = truth.allowed is not None and bool((error <= _ROUNDING * truth.allowed).all())
    return NumericDifference(
        message=f"{output.name} differs on {workload.name}: {wrong_count} of {total} elements ({pattern}), first at "
        f"{list(first)}: expected {expected}, got {got}{', a little more than rounding explains' if rounding else ''}",
        advice=_PRECISION if rounding and pattern != "poison" else _ADVICE[pattern],
        workload=workload.name,
        output=output.name,
        wrong=wrong_count,
        total=total,
        pattern=pattern,
        first_index=first,
        expected=expected,
        actual=got,
        largest_error=float(error.max()),
        allowed_error=allowed,
    )


def classify(wrong: torch.Tensor, actual: torch.Tensor, expected: torch.Tensor) -> Pattern:
    """The pattern of a difference, by the first description that fits."""
    picked, right = actual[wrong], expected[wrong].to(torch.float64)
    if _is_poison(picked):
        return "poison"
    if picked.is_floating_point() and bool(torch.isnan(picked).any()) and not bool(torch.isnan(right).all()):
        return "nan"
    factor = _constant_factor(picked.to(torch.float64), right)
    near = factor is not None and abs(factor - 1) <= 0.01
    if factor is not None and not near and int(wrong.sum()) > 8:
        return "scale"
    rows = wrong.reshape(-1, wrong.shape[-1]) if wrong.ndim > 1 else wrong.reshape(1, -1)
    bad_rows = rows.any(-1)
    if len(rows) > 1 and int(bad_rows.sum()) == 1:
        return "one_row"
    if any(_only_the_end(wrong, axis) for axis in range(wrong.ndim)):
        return "tail"
    if float(wrong.double().mean()) > 0.9:
        return "scattered" if near else "everything"  # near everywhere: computed in too low a precision
    if len(rows) > 1 and not bool(bad_rows.all()) and float(rows[bad_rows].double().mean()) > 0.5:
        return "some_rows"
    return "scattered"


def _is_poison(picked: torch.Tensor) -> bool:
    data = picked.contiguous().view(torch.uint8)
    return any(bool((data == byte).all()) for byte in POISON)


def _constant_factor(picked: torch.Tensor, right: torch.Tensor) -> float | None:
    """The factor (within 1 %) by which nearly all elements differ, if there is one."""
    usable = torch.isfinite(picked) & torch.isfinite(right) & (right != 0)
    if int(usable.sum()) < picked.numel() * 0.9 or not bool(usable.any()):
        return None
    ratio = picked[usable] / right[usable]
    middle = ratio.median()
    alike = bool(middle != 0) and bool(((ratio / middle - 1).abs() < 0.01).double().mean() > 0.95)
    return float(middle) if alike else None


def _only_the_end(wrong: torch.Tensor, axis: int) -> bool:
    """Whether all wrong elements lie in the last eighth (or last 64) of an axis, and reach its end."""
    size = wrong.shape[axis]
    places = wrong.movedim(axis, 0).reshape(size, -1).any(-1).nonzero().flatten()
    if size < 4 or int(places[-1]) != size - 1:
        return False
    first = int(places[0])
    return first >= size - max(1, min(64, size // 4)) and len(places) == size - first


def _text(value: torch.Tensor) -> str:
    return f"{value.item():.9g}" if value.is_floating_point() else str(value.item())
