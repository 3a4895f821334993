"""Can a target tell right from wrong? Answers that do no work must be refused on every workload that is timed."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from kernelevolve.errors import TargetError
from kernelevolve.harness.correctness import Tensors, compare
from kernelevolve.harness.oracle import Oracle, Truth, torch_dtype
from kernelevolve.schema import Target, Workload

SEED = 20_260_101


def check_target(target: Target) -> tuple[str, ...]:
    """Problems found when the target's own code runs on its CPU workloads; empty means none.

    After KernelBench's experience that zeros, a constant, or the right answer to another input pass fixed
    tolerances: under this target's inputs and rules each of them has to fail.
    """
    problems = []
    with tempfile.TemporaryDirectory(prefix="kernelevolve-selfcheck-") as folder:
        try:
            oracle = Oracle(target, Path(folder), SEED)
            for workload in target.select("cpu", "check", "search", "held_out"):
                problems += _check_workload(target, workload, oracle)
        except TargetError as error:
            problems.append(str(error))
    return tuple(problems)


def _check_workload(target: Target, workload: Workload, oracle: Oracle) -> list[str]:
    inputs, others = oracle.inputs(workload), oracle.inputs(workload)
    truths = oracle.truths(inputs, workload)
    right = _answer(target, workload, truths)
    where = f"{workload.name}: "
    problems = [
        f"{where}output {output.name} of reference.py is {tuple(truth.expected.shape)}, "
        f"declared {target.shape(output, workload)}"
        for output, truth in zip(target.outputs, truths, strict=True)
        if tuple(truth.expected.shape) != target.shape(output, workload)
    ]
    if problems:
        return problems
    if found := compare(target, workload, inputs, right, truths):
        return [f"{where}the reference breaks its own rule: {found[0].message}"]
    if workload.role == "check":
        return []
    return [
        f"{where}{name} pass as an answer; make the inputs more telling or the rule stricter"
        for name, answer in _lazy_answers(
            target, workload, inputs, right, _answer(target, workload, oracle.truths(others, workload))
        )
        if not compare(target, workload, inputs, answer, truths)
    ]


def _answer(target: Target, workload: Workload, truths: tuple[Truth, ...]) -> Tensors:
    return {
        output.name: truth.expected.to(torch_dtype(target.dtype(output, workload)))
        for output, truth in zip(target.outputs, truths, strict=True)
    }


def _lazy_answers(
    target: Target, workload: Workload, inputs: Tensors, right: Tensors, replay: Tensors
) -> Iterator[tuple[str, Tensors]]:
    yield "zeros", {name: torch.zeros_like(value) for name, value in right.items()}
    yield "ones", {name: torch.ones_like(value) for name, value in right.items()}
    yield (
        "the mean of the right answer",
        {name: torch.full_like(value, value.double().nan_to_num().mean().item()) for name, value in right.items()},
    )
    yield "the right answer to another input", replay
    for source in inputs.values():
        through = {
            name: source.flatten()[: value.numel()].view(value.shape).to(value.dtype)
            for name, value in right.items()
            if source.numel() >= value.numel()
        }
        if len(through) == len(right):
            yield "inputs passed through", through
