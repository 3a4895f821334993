"""What can be said of a GPU candidate without its device: does it compile, does it fit, does it compute right."""

import time
from pathlib import Path

from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.checks import Checked, CompileCheck, InterpreterCheck
from kernelevolve.harness.cuda_check import CudaCheck, cuda_versions
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.harness.triton_check import TritonCheck, versions
from kernelevolve.languages.cuda import Cuda, machine_code
from kernelevolve.languages.triton import Triton
from kernelevolve.schema import Candidate, Target, Triage


def triage(candidate: Candidate, target: Target, gpu: Gpu, cache_dir: Path) -> Triage:
    """Compile a candidate for a device and interpret it; what was found out before comes from `cache_dir`.

    CUDA C++ isn't interpreted: its check workloads stay unchecked. Raises `UsageError` for a language without a way to
    do so and for CUDA C++ on another vendor's device, `ToolchainError` where Triton or nvcc is missing.
    """
    started = time.perf_counter()
    sandbox = Sandbox.open(cache_dir)
    language, packages, check = _way(candidate, target, gpu, sandbox, cache_dir)
    parse = language.admit(candidate.files, candidate.entry)
    if parse:
        unchecked = tuple(w.name for w in target.select("gpu", "check"))
        found = Checked(CompileCheck(), InterpreterCheck(unchecked=unchecked))
    else:
        found = check.run()
    compiled, interpreted = found.compiled, found.interpreted
    said = {d.message for d in compiled.diagnostics}
    new = (d for d in interpreted.diagnostics if d.message not in said)
    total = time.perf_counter() - started
    return Triage(
        candidate=candidate.digest, target=target.digest, hardware_key=gpu.key, architecture=gpu.architecture,
        versions=packages, sandbox=sandbox.walls, kernels=compiled.kernels, rejected=compiled.rejected,
        checked=interpreted.checked, unchecked=interpreted.unchecked,
        hints=() if parse else (*language.hints(candidate.files), *compiled.hints),
        diagnostics=(*parse, *compiled.diagnostics, *new),
        seconds={"compile": found.compile_s, "interpret": found.interpret_s, "total": total},
    )  # fmt: skip


def _way(
    candidate: Candidate, target: Target, gpu: Gpu, sandbox: Sandbox, cache_dir: Path
) -> tuple[Triton | Cuda, dict[str, str], TritonCheck | CudaCheck]:
    """The language, what versions of its tools say, and its checks."""
    if candidate.language == Triton.name:
        return Triton(), versions(), TritonCheck(candidate, target, gpu, sandbox, cache_dir)
    if candidate.language == Cuda.name:
        machine_code(gpu.architecture)
        return Cuda(), cuda_versions(), CudaCheck(candidate, target, gpu, sandbox, cache_dir)
    raise UsageError(
        f"{candidate.language} candidates can't be triaged",
        remedy="give a Triton or a CUDA candidate (--language triton, --language cuda)",
    )
