"""Axes and element types are read off the arguments of a call."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kernelevolve.errors import UsageError
from kernelevolve.runtime.signature import Signature
from kernelevolve.schema import Input, Output
from kernelevolve.testing.records import a_target


def signature(*shapes: tuple[str | int, ...], axes: str = "A", outputs: tuple[str, ...] = ("A",)) -> Signature:
    inputs = tuple(Input(name=f"x{i}", shape=shape, dtype="T") for i, shape in enumerate(shapes))
    return Signature(
        a_target(axes=dict.fromkeys(axes, ""), inputs=inputs, outputs=(Output(name="y", shape=outputs, dtype="T"),))
    )


@given(st.integers(0, 20), st.sampled_from(["A", "A + 3", "3 + A", "A - 2", "2 * A", "A * 4"]))
def test_an_axis_is_found_from_a_linear_expression(size, expression):
    length = eval(expression, {"A": size})
    if length < 0:
        return
    point = signature((expression,)).point((torch.empty(length),))
    assert point is not None
    assert point.axes == {"A": size}
    assert point.shapes == (torch.Size([size]),)
    assert point.output_dtypes == (torch.float32,)


@pytest.mark.parametrize("lengths", [(5, 6), (6, 5), (4, 4)])
def test_inputs_that_contradict_each_other_have_no_point(lengths):
    args = tuple(torch.empty(length) for length in lengths)
    assert (signature(("A",), ("A + 1",)).point(args) is not None) == (lengths == (5, 6))


def test_sizes_that_no_axis_gives_have_no_point():
    assert signature(("2 * A",)).point((torch.empty(5),)) is None
    assert signature(("A + 3",)).point((torch.empty(1),)) is None
    assert signature(("A", 4)).point((torch.empty(2, 5),)) is None
    assert signature(("A",)).point((torch.empty(2, 2),)) is None
    assert signature(("A", "A // (A - 1)")).point((torch.empty(1, 1),)) is None


def test_outputs_and_other_inputs_may_be_any_expression():
    found = signature(("A",), ("B",), ("A * B",), axes="AB", outputs=("A + B", "max(A, B)"))
    args = (torch.empty(2), torch.empty(3), torch.empty(6))
    assert found.point(args).shapes == (torch.Size([5, 3]),)


def test_one_type_parameter_stands_for_one_type():
    found = signature(("A",), ("A",))
    assert found.point((torch.empty(2), torch.empty(2).bfloat16())) is None
    assert found.point((torch.empty(2).bfloat16(), torch.empty(2).bfloat16())).dtypes == {"T": "bfloat16"}


def test_an_axis_that_does_not_follow_is_an_error_at_once():
    with pytest.raises(UsageError, match="'B' doesn't follow"):
        signature(("A", "A * B"), axes="AB")


def test_a_type_that_does_not_follow_is_an_error_at_once():
    inputs = (Input(name="x", shape=("N",), dtype="int64"),)
    with pytest.raises(UsageError, match="no input is of the type 'T'"):
        Signature(a_target(inputs=inputs))
