"""What a judge does around a candidate on a GPU: watch the device, and see to it that it is fit for the next one."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from kernelevolve.errors import JudgeError
from kernelevolve.hardware.gpu_state import Watch
from kernelevolve.harness.access import Access
from kernelevolve.harness.device_health import Unhealthy, ensure, probe, uncorrected_errors
from kernelevolve.schema import CalibrationJob, Diagnostic, Hardware, Job


class Device:
    """The device of one job. For a CPU, and in the interpreter, there is nothing to watch."""

    def __init__(self, hardware: Hardware, access: Access) -> None:
        self._hardware = hardware
        self._real = hardware.device == "gpu" and not access.interpreted
        self._errors = uncorrected_errors(hardware) if self._real else None

    @property
    def has_graphs(self) -> bool:
        """Whether calls can be captured and replayed."""
        return self._real

    @property
    def shared(self) -> bool:
        """Whether work that a candidate left behind goes on when its process is held still."""
        return self._real

    @contextmanager
    def watched(self, notes: list[Diagnostic]) -> Iterator[None]:
        """While something is timed; what was seen goes to `notes`. Raises `JudgeError` where memory has failed."""
        if not self._real:
            yield
            return
        with Watch(self._hardware) as watch:
            yield
        if watch.new_errors:
            ensure(Unhealthy(f"{watch.new_errors} uncorrected memory errors (ECC) were counted"), self._hardware)
        if watch.state is not None:
            notes.append(watch.state)

    def still_fit(self, findings: tuple[Diagnostic, ...]) -> None:
        """After a fault or a hang, try the device before anything else runs on it. Raises `JudgeError`."""
        suspicious = any(f.kind in ("fault", "crash") or (f.kind == "limit" and f.resource == "time") for f in findings)
        if self._real and suspicious:
            ensure(probe(self._hardware, errors_before=self._errors), self._hardware)


@contextmanager
def room_for(job: Job | CalibrationJob) -> Iterator[None]:
    """Raises `JudgeError` where the device has no room for the judge's own tensors."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise JudgeError(
            f"{job.hardware.key} has no room for inputs and answers of {job.target.name}: {error}",
            remedy="end what else uses the device, use fewer --workers, or name fewer workloads",
        ) from error
