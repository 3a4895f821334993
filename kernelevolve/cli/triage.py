"""The command `triage`: a GPU candidate without the device that it is for."""

from pathlib import Path
from typing import Annotated

import typer

from kernelevolve import settings
from kernelevolve.catalog import LANGUAGES
from kernelevolve.cli import formats, output
from kernelevolve.cli.options import CANDIDATE_FAILED, AsJson, SettingsFile, TargetsDir
from kernelevolve.errors import UsageError
from kernelevolve.schema import CompiledKernel, Estimate, NoEstimate, Triage


def triage(
    target: Annotated[str, typer.Argument(help="Name of the target.")],
    files: Annotated[list[Path], typer.Argument(help="Files of the candidate.")],
    *,
    hardware: Annotated[
        str, typer.Option("--hardware", help="Key or alias of the GPU it is for; none has to be here.")
    ] = "nvidia-h200",
    language: Annotated[
        str | None, typer.Option("--language", help="Kernel language (default: by the first file's suffix).")
    ] = None,
    targets: TargetsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Compile a Triton or CUDA candidate for a GPU that needn't be here; Triton's results are checked too."""
    from kernelevolve import targets as folders
    from kernelevolve.hardware.devices import known
    from kernelevolve.harness.estimate import estimates
    from kernelevolve.harness.triage import triage as examine
    from kernelevolve.resources import targets_dir
    from kernelevolve.schema import Candidate, Lineage

    chosen = settings.load(file, targets=targets)
    sources = {path.name: _read(path) for path in files}
    kind = language or _by_suffix(files[0])
    candidate = Candidate(language=kind, files=sources, lineage=Lineage(origin=files[0].name))
    operation, gpu = folders.load(target, targets_dir(chosen.targets)), known(hardware)
    found = examine(candidate, operation, gpu, chosen.cache)
    times = estimates(found, operation, gpu) if found.passed else ()
    if as_json:
        output.document({"passed": found.passed, "estimates": times, **found.model_dump(mode="json")})
    else:
        _tell(found)
        _tell_estimates(times)
    if not found.passed:
        raise typer.Exit(CANDIDATE_FAILED)


def _tell(found: Triage) -> None:
    compiler = "nvcc" if "nvcc" in found.versions else "triton"
    output.text(f"{found.hardware_key} ({found.architecture}), {compiler} {found.versions[compiler]}")
    if found.kernels:
        output.table(
            ("WORKLOAD", "KERNEL", "CONFIGURATION", "GRID", ">REGISTERS", ">SPILLS, B", ">SHARED, B", ">OCCUPANCY",
             ">WAVES", ">TENSOR CORE", ">VECTOR LOADS", ">ASYNC COPIES", "FITS"),
            map(_row, found.kernels),
        )  # fmt: skip
    for finding in found.rejected:
        output.text(f"a configuration is out: {finding.message}")
    if compiler == "nvcc":
        output.text("CUDA C++ isn't interpreted: what it computes is compared on a device only")
    else:
        output.text(f"compared in the interpreter: {len(found.checked)} workloads; not: {len(found.unchecked)}")
    for finding in found.diagnostics:
        place = f"{finding.file}:{finding.line}: " if finding.kind == "compile" and finding.file else ""
        output.text(f"{finding.kind}: {place}{finding.message}")
        output.text(f"  {finding.advice}")
    for hint in found.hints:
        output.text(f"hint: {hint}")
    spent = ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in found.seconds.items())
    output.text(f"{'passed' if found.passed else 'failed'}; seconds: {spent}")


def _tell_estimates(times: tuple[Estimate | NoEstimate, ...]) -> None:
    if not times:
        return
    output.text("estimates by a static model, not measurements:")
    output.table(
        ("WORKLOAD", ">ESTIMATE, US", "POSSIBLE, US", "BOUND", ">MEMORY", ">CACHE", ">COMPUTE", ">INSTRUCTIONS",
         ">SPILLS", ">TAIL", ">LAUNCH"),
        map(_estimate_row, times),
    )  # fmt: skip


def _estimate_row(found: Estimate | NoEstimate) -> tuple[str, ...]:
    if isinstance(found, NoEstimate):
        return found.workload, "none", found.reason, *[""] * 8
    parts, us = found.parts, formats.microseconds
    shown = (parts.memory_us, parts.cache_us, parts.compute_us, parts.instructions_us, parts.spill_us, parts.tail_us)
    return (
        found.workload,
        us(found.estimated_us),
        f"{us(found.low_us)} to {us(found.high_us)}",
        found.bound,
        *map(us, (*shown, parts.launch_us)),
    )


def _row(kernel: CompiledKernel) -> tuple[str, ...]:
    needs = kernel.resources
    counts = needs.instructions
    return (
        kernel.workload,
        kernel.kernel,
        " ".join(f"{name}={value}" for name, value in kernel.configuration.items()),
        "x".join(map(str, kernel.grid)),
        str(needs.registers),
        str(needs.spill_bytes),
        str(needs.shared_bytes),
        f"{kernel.occupancy:.0%}",
        "-" if kernel.waves is None else f"{kernel.waves:.2f}",
        str(counts.tensor_core),
        str(counts.vector_loads),
        str(counts.async_copies),
        "no" if kernel.diagnostics else "yes",
    )


def _by_suffix(path: Path) -> str:
    """The GPU language whose files end like this; Triton where none does, which then says so."""
    for name in LANGUAGES.names():
        language = LANGUAGES.load(name)
        if "gpu" in language.devices and path.suffix in language.suffixes:
            return name
    return "triton"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"can't read {path}: {error}", remedy="name a source file") from error
