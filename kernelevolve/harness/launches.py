"""What is said to, and heard from, the process that finds out what a Triton candidate launches."""

from pydantic import Field

from kernelevolve.hardware.devices import Gpu
from kernelevolve.schema import Diagnostic, Input, Record, Resources, Target, TensorUse, Workload

PRINTED = "printed.txt"
"""Beside the candidate's modules: what the compiler has said of the kernel that it was at last."""


class LaunchArgument(Record):
    """One argument of `run`: a tensor by shape and element type, or an integer."""

    shape: tuple[int, ...] | None = None
    dtype: str = "int64"
    value: int = 0
    constant: bool = False
    output: bool = False


class LaunchWorkload(Record):
    """A call of `run` by its arguments' shapes."""

    name: str
    arguments: tuple[LaunchArgument, ...]

    @staticmethod
    def of(target: Target, workload: Workload) -> "LaunchWorkload":
        """The arguments of a target's workload."""
        arguments = []
        for tensor in target.tensors:
            if isinstance(tensor, Input) and tensor.shape is None:
                arguments.append(LaunchArgument(value=workload.axes[tensor.axis or tensor.name]))
                continue
            arguments.append(
                LaunchArgument(
                    shape=target.shape(tensor, workload), dtype=target.dtype(tensor, workload),
                    constant=isinstance(tensor, Input) and tensor.constant, output=not isinstance(tensor, Input),
                )
            )  # fmt: skip
        return LaunchWorkload(name=workload.name, arguments=tuple(arguments))


class CaptureJob(Record):
    """Which module to call, with what, as if on which device."""

    main: str = Field(description="file name of the module with the entry point")
    entry: str
    gpu: Gpu
    workloads: tuple[LaunchWorkload, ...]


class Launch(Record):
    """One kernel launch in one configuration: compiled, or refused by the compiler."""

    workload: str
    number: int = Field(description="position among the launches of the workload; configurations share it")
    kernel: str
    grid: tuple[int, int, int] = (1, 1, 1)
    configuration: dict[str, str] = Field(default_factory=dict)
    resources: Resources | None = None
    tensors: tuple[TensorUse, ...] = ()
    code: str = Field("", description="digest of the code, without the places in the source")
    error: Diagnostic | None = None


class CaptureReport(Record):
    """All launches, and what kept `run` from getting to its end. Written by the candidate's process: not trusted."""

    launches: tuple[Launch, ...]
    diagnostics: tuple[Diagnostic, ...]
    seconds: dict[str, float]
