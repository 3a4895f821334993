"""A target that can't tell right from wrong is reported; the shipped ones can."""

from pathlib import Path

import pytest

from kernelevolve import targets
from kernelevolve.harness.selfcheck import check_target
from kernelevolve.schema import Target
from kernelevolve.testing.records import a_target

SHIPPED = Path(__file__).parents[2] / "targets"


def of(target: Target, **files: str) -> tuple[str, ...]:
    """Problems of a target with other files."""
    named = {f"{name}.py": text for name, text in files.items()}
    return check_target(target.model_copy(update={"files": {**target.files, **named}}))


def test_the_template_and_the_smallest_target_have_no_problem(tiny: Target) -> None:
    assert check_target(tiny) == ()
    assert check_target(a_target()) == ()


@pytest.mark.parametrize(
    ("lazy", "inputs"),
    [
        ("zeros", "torch.zeros(axes['N'])"),
        ("ones", "torch.full((axes['N'],), 0.5)"),
        ("the mean of the right answer", "torch.full((axes['N'],), 3.0)"),
        ("the right answer to another input", "torch.arange(float(axes['N']))"),
    ],
)
def test_inputs_under_which_a_lazy_answer_passes_are_reported(lazy: str, inputs: str) -> None:
    make = f"import torch\n\n\ndef make(case, axes, dtypes, generator):\n    return {{'x': {inputs}}}\n"
    problems = of(a_target(), inputs=make)
    assert any(f"n1024: {lazy} pass" in problem for problem in problems), problems
    assert any(f"n2048: {lazy} pass" in problem for problem in problems), "held-out workloads too"
    assert not any("n7" in problem for problem in problems), "a small check may be that simple"


def test_a_rule_so_loose_that_zeros_pass_is_reported() -> None:
    loose = a_target().outputs[0].model_copy(update={"rule": {"kind": "error", "floor_ulps": 1e9}})
    problems = check_target(a_target(outputs=(loose,)))
    assert any("zeros pass" in problem for problem in problems)
    assert any("rule stricter" in problem for problem in problems)


def test_a_reference_that_passes_its_input_through_is_reported() -> None:
    problems = of(a_target(), reference="def reference(x):\n    return x.clone()\n")
    assert any("inputs passed through pass" in problem for problem in problems)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("def reference(x):\n    return (2 * x)[:-1]\n", "is (1023,), declared (1024,)"),
        ("def reference(x)\n", "reference.py"),
        ("import no_such_module\n", "no_such_module"),
    ],
)
def test_a_reference_that_is_wrong_is_reported(reference: str, said: str) -> None:
    problems = of(a_target(), reference=reference)
    assert any(said in problem for problem in problems), problems


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.names(SHIPPED))
def test_every_shipped_target_tells_right_from_wrong(name: str) -> None:
    assert check_target(targets.load(name, SHIPPED)) == ()
