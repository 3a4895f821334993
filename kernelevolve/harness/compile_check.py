"""Compiles what a Triton candidate launches for a chosen device, inside the walls, and judges whether it fits.

What comes back was written by the candidate's own process: good enough to spare a device hopeless work, and never
evidence for a certificate.
"""

import os
import signal
import tempfile
from pathlib import Path

from pydantic import ValidationError

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.checks import CompileCheck
from kernelevolve.harness.launches import PRINTED, CaptureJob, CaptureReport, Launch, LaunchWorkload
from kernelevolve.harness.programs import python_command
from kernelevolve.harness.resources import excess, residency
from kernelevolve.harness.sandbox import Finished, Sandbox
from kernelevolve.harness.zygote import Preload, run_forked, zygote
from kernelevolve.languages.triton import Triton, main_file
from kernelevolve.schema import (
    Candidate,
    CompiledKernel,
    Crash,
    Diagnostic,
    LimitExceeded,
    Limits,
    Target,
)

_CAPTURE = "kernelevolve.harness.triton_capture"
LIMITS = Limits(memory_bytes=32 << 30, build_s=180.0, processes=256)
"""torch and LLVM map much more memory than they use."""
_MOST_REPORT = 16 << 20


def compile_check(
    candidate: Candidate, target: Target, gpu: Gpu, sandbox: Sandbox, cache_dir: Path
) -> CompileCheck:  # fmt: skip
    """Compile all that is launched on the target's search workloads for GPUs."""
    workloads = tuple(LaunchWorkload.of(target, w) for w in target.select("gpu", "search"))
    main = main_file(candidate.files, candidate.entry) or min(candidate.files)
    job = CaptureJob(main=main, entry=candidate.entry, gpu=gpu, workloads=workloads)
    with tempfile.TemporaryDirectory(prefix="kernelevolve-triage-") as scratch:
        work = Path(scratch) / "work"
        write_sources(candidate, work)
        (work / "job.json").write_text(job.model_dump_json())
        done = _captured(work, gpu, sandbox, cache_dir)
        report = _report(work / "report.json") if done.returncode == 0 else None
        said = (_read(work / PRINTED) or b"").decode(errors="replace") + done.output
    if report is None:
        return CompileCheck(diagnostics=(_ended(done, said.strip()[-400:]),), seconds={"capture": done.seconds})
    return judged(report, gpu)


def _captured(work: Path, gpu: Gpu, sandbox: Sandbox, cache_dir: Path) -> Finished:
    environment = {"TRITON_CACHE_DIR": f"{work}/.triton", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command, readable = python_command(_CAPTURE)
    server = zygote(Preload((_CAPTURE,), (gpu.vendor,)), cache_dir)
    if server is not None:
        return run_forked(
            server, sandbox, (_CAPTURE,), environment=environment, limits=LIMITS, seconds=LIMITS.build_s,
            readable=readable, folder=work,
        )  # fmt: skip
    words = [f"{name}={value}" for name, value in environment.items()]
    return sandbox.run(
        ["/usr/bin/env", *words, *command], limits=LIMITS, seconds=LIMITS.build_s, readable=readable,
        writable=(work,), cwd=work,
    )  # fmt: skip


def write_sources(candidate: Candidate, folder: Path) -> None:
    """The candidate's modules with their tunables substituted, readable for the walls' user."""
    for path, text in Triton().sources(candidate).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    folder.parent.chmod(0o755)


def judged(report: CaptureReport, gpu: Gpu) -> CompileCheck:
    """Hold every launch against the device. A launch fails where none of its configurations can be used."""
    kernels = [_kernel(launch, gpu) for launch in report.launches if launch.resources is not None]
    usable = {(k.workload, k.launch) for k in kernels if not k.diagnostics}
    findings = [((k.workload, k.launch), d) for k in kernels for d in k.diagnostics]
    findings += [((x.workload, x.number), x.error) for x in report.launches if x.error is not None]
    fatal = [finding for site, finding in findings if site not in usable]
    rejected = [finding for site, finding in findings if site in usable]
    return CompileCheck(
        kernels=tuple(kernels), rejected=tuple(dict.fromkeys(rejected)),
        diagnostics=tuple(dict.fromkeys([*fatal, *report.diagnostics])), seconds=report.seconds,
    )  # fmt: skip


def _kernel(launch: Launch, gpu: Gpu) -> CompiledKernel:
    assert launch.resources is not None
    values = " ".join(f"{name}={value}" for name, value in launch.configuration.items())
    resident = residency(launch.resources, gpu, launch.grid)
    return CompiledKernel(
        workload=launch.workload, launch=launch.number, kernel=launch.kernel, grid=launch.grid,
        configuration=launch.configuration, resources=launch.resources, blocks_per_multiprocessor=resident.blocks,
        occupancy=resident.occupancy, waves=resident.waves, tensors=launch.tensors, code=launch.code,
        diagnostics=excess(launch.resources, gpu, launch.grid, f"{launch.kernel} ({values})"),
    )  # fmt: skip


def _report(path: Path) -> CaptureReport | None:
    """None where the process left none that can be read."""
    try:
        return CaptureReport.model_validate_json(_read(path) or b"")
    except ValidationError:
        return None


def _read(path: Path) -> bytes | None:
    """A file that the candidate's process wrote, if it did. A link is not followed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_MOST_REPORT)
    except OSError:
        return None


def _ended(done: Finished, said: str) -> Diagnostic:
    if done.timed_out:
        message = f"compiling for the device took longer than {LIMITS.build_s:g} s"
        advice = "an endless loop in run; or fewer configurations, smaller blocks, less unrolling"
        return LimitExceeded(message=message, advice=advice, resource="time", limit=LIMITS.build_s)
    code, name = done.returncode, None
    if code < 0:
        name = next((s.name for s in signal.Signals if s == -code), f"signal {-code}")
    return Crash(
        message=f"the compiling process ended by {name or f'code {code}'}" + (f"; it printed: {said}" if said else ""),
        advice="the compiler itself failed on the kernel (look at inline assembly first)" if name else
        "return from run; never exit",
        signal=name, exit_code=code if name is None else None,
    )  # fmt: skip
