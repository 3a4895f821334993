"""Compiles ahead of time everything that a Triton candidate launches, for a device that isn't there.

Runs inside the walls, in a folder that holds the candidate's modules and `job.json` (a `CaptureJob`), as
`python -I -m kernelevolve.harness.triton_capture`; leaves `report.json` (a `CaptureReport`) there. The candidate is
called with fake tensors, which have shapes and no values; every launch is compiled with its real specialisation and
none is made.
"""

import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from triton.runtime.autotuner import Autotuner
from triton.runtime.jit import JITFunction

from kernelevolve.errors import ToolchainError
from kernelevolve.hardware.devices import DEVICES
from kernelevolve.harness.fake_gpu import FakeGpu
from kernelevolve.harness.inspection import Inspection
from kernelevolve.harness.launches import (
    PRINTED,
    CaptureJob,
    CaptureReport,
    Launch,
    LaunchArgument,
    LaunchWorkload,
)
from kernelevolve.harness.oracle import torch_dtype
from kernelevolve.harness.triton_device import pretending
from kernelevolve.harness.triton_errors import of_compiler, of_launcher
from kernelevolve.harness.triton_warmup import compile_once
from kernelevolve.languages.base import Loaded
from kernelevolve.languages.triton import Triton
from kernelevolve.schema import Diagnostic, TensorUse, digest_of


class Capture:
    """The launches of one candidate."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self._filed: list[tuple[Launch, str | None]] = []
        self._inspection = Inspection()
        self.sources = sources
        self.reported: BaseException | None = None
        """the compiler's last error: already among the launches when it leaves `run`"""
        self.seconds = {"compile": 0.0, "inspect": 0.0}
        self._printed = Path.cwd() / PRINTED
        self._workload = ""
        self._number = -1
        self._tuning = False
        self._storages: dict[int, tuple[int, Any]] = {}
        """address to number; a storage is kept so that no other one gets its address"""

    @contextmanager
    def patched(self) -> Iterator[None]:
        """While this holds, launching means compiling."""
        launch, tune = JITFunction.run, Autotuner.run

        def run(function: Any, *args: Any, grid: Any, warmup: bool, **keywords: Any) -> Any:
            if not self._tuning:
                self._number += 1
            return self._compile(launch, function, args, grid, keywords)

        def tuned(tuner: Any, *args: Any, **keywords: Any) -> Any:
            self._number += 1
            self._tuning = True
            try:
                return tune(tuner, *args, **keywords)
            finally:
                self._tuning = False

        with patch.object(JITFunction, "run", run), patch.object(Autotuner, "run", tuned):
            yield

    def begin(self, workload: str) -> None:
        """What comes now belongs to this workload."""
        self._workload, self._number = workload, -1
        self._storages = {}

    def _compile(
        self, launch: Callable[..., Any], function: Any, args: Sequence[Any], grid: Any, keywords: dict[str, Any]
    ) -> Any:
        started = time.perf_counter()
        # Said aloud, since a coming Triton has another default.
        keywords.setdefault("enable_fp_fusion", True)
        configuration: dict[str, str] = {}
        tensors: tuple[TensorUse, ...] = ()
        printed = ""
        try:
            with _printing(self._printed) as said:
                try:
                    named = _arguments(function, args, keywords)
                    configuration = _constants(function, named, keywords)
                    tensors = self._tensors(named.values())
                    sides = _sides(grid(named) if callable(grid) else grid)
                    compiled = launch(function, *args, grid=grid, warmup=True, **keywords)
                finally:
                    printed = said()
        except Exception as error:
            self.reported = error
            self._file(function, (1, 1, 1), configuration, error=of_compiler(error, printed, self.sources))
            raise
        finally:
            self.seconds["compile"] += time.perf_counter() - started
        self._file(function, sides, configuration, compiled=compiled, tensors=tensors, code=_code(compiled.asm))
        return compiled

    def _tensors(self, values: Iterable[Any]) -> tuple[TensorUse, ...]:
        """The memory that a launch is given, each once; of a descriptor, that of the tensor it describes."""
        found: dict[int, int] = {}
        for tensor in (getattr(value, "base", value) for value in values):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                number, _ = self._storages.setdefault(storage._cdata, (len(self._storages), storage))
                size = min(tensor.numel() * tensor.element_size(), storage.nbytes())
                found[number] = max(size, found.get(number, 0))
        return tuple(TensorUse(storage=number, bytes=size) for number, size in found.items())

    def _file(
        self, function: Any, grid: tuple[int, int, int], configuration: dict[str, str], *, compiled: Any = None,
        **found: Any,
    ) -> None:  # fmt: skip
        launch = Launch(
            workload=self._workload, number=self._number, kernel=function.__name__, grid=grid,
            configuration=configuration, **found,
        )  # fmt: skip
        filed = launch, None if compiled is None else self._inspection.add(compiled)
        if filed not in self._filed:  # a tuner launches its choice a second time
            self._filed.append(filed)

    def launches(self) -> tuple[Launch, ...]:
        """All of them, with what their kernels need."""
        started = time.perf_counter()
        resources = self._inspection.resources()
        self.seconds["inspect"] = time.perf_counter() - started
        return tuple(
            launch if key is None else launch.model_copy(update={"resources": resources[key]})
            for launch, key in self._filed
        )


def _code(asm: Mapping[str, Any]) -> str:
    """Digest of the assembly without comments and places in the source."""
    text, comment = (asm["ptx"], "//") if "ptx" in asm else (asm["amdgcn"], ";")
    lines = [line.partition(comment)[0].strip() for line in text.partition("\t.section\t.debug")[0].splitlines()]
    return digest_of([line for line in lines if line and not line.startswith((".loc", ".file", ".Ltmp", "$L__tmp"))])


def _arguments(function: Any, args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """The kernel's arguments by name, as a grid that is a function gets them."""
    defaults = {n: p.default for n, p in function.signature.parameters.items() if p.default is not inspect._empty}
    return {**defaults, **dict(zip(function.arg_names, args, strict=False)), **keywords}


def _constants(function: Any, named: Mapping[str, Any], keywords: Mapping[str, Any]) -> dict[str, str]:
    values = {p.name: named[p.name] for p in function.params if p.is_constexpr and p.name in named}
    values |= {name: keywords[name] for name in ("num_warps", "num_stages", "num_ctas") if name in keywords}
    return {name: str(getattr(value, "__name__", value)) for name, value in values.items()}


def _sides(grid: Sequence[int]) -> tuple[int, int, int]:
    first, second, third, *_ = (*(int(side) for side in grid), 1, 1, 1)
    return first, second, third


@contextmanager
def _printing(to: Path) -> Iterator[Callable[[], str]]:
    """What passes and ptxas print (they write to the descriptors) can be read as text.

    Where the compiler takes the process down, the judge finds it in the file.
    """
    with to.open("w+b") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        kept = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)

        def said() -> str:
            sys.stderr.flush()
            file.seek(0)
            return file.read(1 << 20).decode(errors="replace")

        try:
            yield said
        finally:
            for descriptor, old in zip((1, 2), kept, strict=True):
                os.dup2(old, descriptor)
                os.close(old)


def call(loaded: Loaded, workload: LaunchWorkload, make: Callable[[LaunchArgument], Any]) -> None:
    """`prepare`, where there is one, and `run`, with arguments that `make` makes."""
    given = [(a, make(a)) for a in workload.arguments]
    packed = () if loaded.prepare is None else (loaded.prepare(*(v for a, v in given if a.constant)),)
    inputs = [value for a, value in given if not a.output]
    loaded.run(*inputs, *packed, *(value for a, value in given if a.output))


def _fake(argument: LaunchArgument) -> Any:
    if argument.shape is None:
        return argument.value
    return torch.empty(argument.shape, dtype=torch_dtype(argument.dtype), device="cuda")


def _run_all(job: CaptureJob, capture: Capture) -> Iterator[Diagnostic]:
    try:
        loaded = Triton().load(Path(job.main).absolute(), job.entry)
    except ToolchainError as error:
        yield of_launcher(error.__cause__ or error, None, capture.sources)
        return
    for workload in job.workloads:
        capture.begin(workload.name)
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), FakeGpu():
                call(loaded, workload, _fake)
        except Exception as error:  # noqa: BLE001 - the process boundary: what the candidate raises is a finding
            if error is not capture.reported:
                yield of_launcher(error, workload.name, capture.sources)


def warm_up(vendor: str) -> None:
    """Compile something for a device of that vendor, in the process that candidates' ones are forked from."""
    compile_once(next(gpu for gpu in DEVICES if gpu.vendor == vendor))


def main(_argv: list[str]) -> None:
    """Read the job, write the report."""
    logging.disable(logging.WARNING)
    began = time.perf_counter()
    job = CaptureJob.model_validate_json(Path("job.json").read_bytes())
    capture = Capture({path.name: path.read_text() for path in Path.cwd().glob("*.py")})
    # A kernel is specialised by the alignment of its pointers, which a fake tensor has none of.
    aligned = patch.object(FakeTensor, "data_ptr", lambda self: self.storage_offset() * self.element_size())
    with aligned, pretending(job.gpu), capture.patched(), torch.no_grad():
        diagnostics = tuple(_run_all(job, capture))
    launches = capture.launches()
    seconds = {**capture.seconds, "capture": time.perf_counter() - began}
    report = CaptureReport(launches=launches, diagnostics=diagnostics, seconds=seconds)
    Path("report.json").write_text(report.model_dump_json())


if __name__ == "__main__":
    main(sys.argv)
