"""What can be said of a Triton candidate without its device: does it compile, does it fit, does it compute right."""

import time
from pathlib import Path

from kernelevolve.errors import UsageError
from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness.checks import CompileCheck, InterpreterCheck
from kernelevolve.harness.sandbox import Sandbox
from kernelevolve.harness.triton_check import Checked, TritonCheck, versions
from kernelevolve.languages.triton import Triton
from kernelevolve.schema import Candidate, Target, Triage


def triage(candidate: Candidate, target: Target, gpu: Gpu, cache_dir: Path) -> Triage:
    """Compile a candidate for a device and interpret it; what was found out before comes from `cache_dir`.

    Raises `UsageError` for another language than Triton, and `ToolchainError` where Triton is missing.
    """
    if candidate.language != Triton.name:
        raise UsageError(
            f"{candidate.language} candidates can't be triaged", remedy="give a Triton candidate (--language triton)"
        )
    started = time.perf_counter()
    packages = versions()
    sandbox = Sandbox.open(cache_dir)
    language = Triton()
    parse = language.admit(candidate.files, candidate.entry)
    if parse:
        unchecked = tuple(w.name for w in target.select("gpu", "check"))
        found = Checked(CompileCheck(), InterpreterCheck(unchecked=unchecked))
    else:
        found = TritonCheck(candidate, target, gpu, sandbox, cache_dir).run()
    compiled, interpreted = found.compiled, found.interpreted
    said = {d.message for d in compiled.diagnostics}
    new = (d for d in interpreted.diagnostics if d.message not in said)
    total = time.perf_counter() - started
    return Triage(
        candidate=candidate.digest, target=target.digest, hardware_key=gpu.key, architecture=gpu.architecture,
        versions=packages, sandbox=sandbox.walls, kernels=compiled.kernels, rejected=compiled.rejected,
        checked=interpreted.checked, unchecked=interpreted.unchecked,
        hints=() if parse else language.hints(candidate.files), diagnostics=(*parse, *compiled.diagnostics, *new),
        seconds={"compile": found.compile_s, "interpret": found.interpret_s, "total": total},
    )  # fmt: skip
