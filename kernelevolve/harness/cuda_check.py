"""Compiles a CUDA candidate for a chosen device, finds out what it launches, and judges whether that fits.

Its host code runs inside the walls, over a stand-in for the CUDA runtime (`native/cuda_launches.cpp`), with tensors
that have shapes and no memory: every launch is noted down with its grid, and none is made. As with Triton, what comes
back was written by the candidate's own process: good enough to spare a device hopeless work, and never evidence for a
certificate.
"""

import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kernelevolve.hardware.devices import Gpu
from kernelevolve.harness import cubin
from kernelevolve.harness.build import findings_of, write_sources
from kernelevolve.harness.checks import Checked, CompileCheck, InterpreterCheck
from kernelevolve.harness.compile_check import judged
from kernelevolve.harness.cuda_calls import Called, Compiled, end_of, finding, heard, job, read
from kernelevolve.harness.hot_loop import hot_loop
from kernelevolve.harness.kept import kept
from kernelevolve.harness.launches import CaptureReport, Launch, LaunchWorkload
from kernelevolve.harness.resources import nvidia_instructions
from kernelevolve.harness.sandbox import NATIVE, Finished, Sandbox, native_tool
from kernelevolve.languages.cpp import compiler
from kernelevolve.languages.cuda import Cuda, toolkit, warnings
from kernelevolve.languages.cxx import ffi_folder
from kernelevolve.languages.triton import triton_version
from kernelevolve.schema import (
    Candidate,
    Crash,
    Diagnostic,
    Instructions,
    LimitExceeded,
    Limits,
    Resources,
    Target,
    digest_of,
)

LIMITS = Limits(output_bytes=64 << 20)
"""As when it is built for the device, but that disassemblers print much."""

_READER_S = 60.0
_LINK = ("-shared", "-cudart=none", "-o", "kernel.so")
"""What it calls of the runtime is found in the process that loads it."""
_USAGE = re.compile(
    r"Function (?P<symbol>\S+):\s+REG:(?P<registers>\d+)\s+STACK:(?P<stack>\d+)\s+SHARED:(?P<shared>\d+)"
)
_DECLARED = 48 << 10
"""Bytes of shared memory that a launch gets without asking."""
_DEPTH = 64
"""Most threads along the third side of a block."""


@dataclass(frozen=True)
class _Walled:
    """A folder that programs inside the walls may write, and the device that all is for."""

    sandbox: Sandbox
    work: Path
    gpu: Gpu

    def run(self, *argv: str, seconds: float, readable: Sequence[Path] = ()) -> Finished:
        return self.sandbox.run(
            argv, limits=LIMITS, seconds=seconds, readable=readable, writable=(self.work,), cwd=self.work
        )


@dataclass(frozen=True)
class CudaCheck:
    """One candidate on its way to a device."""

    candidate: Candidate
    target: Target
    gpu: Gpu
    sandbox: Sandbox
    cache_dir: Path

    def run(self) -> Checked:
        """What was found out before is known. Raises what `cuda_check` raises."""
        identity = (self.candidate.code, self.target.digest, cuda_versions(), _own_code(), self.gpu.digest)
        compiled, seconds = kept(
            self.cache_dir / "triage" / f"{digest_of('cuda', *identity)}.json", CompileCheck,
            lambda: cuda_check(self.candidate, self.target, self.gpu, self.sandbox, self.cache_dir),
        )  # fmt: skip
        unchecked = tuple(w.name for w in self.target.select("gpu", "check"))
        return Checked(compiled, InterpreterCheck(unchecked=unchecked), seconds)


def cuda_versions() -> dict[str, str]:
    """Of what compiles and disassembles. Raises `ToolchainError` where there is no nvcc, or no Triton."""
    return {"nvcc": toolkit().version, "g++": compiler()[1], "triton": triton_version()}


@cache
def _own_code() -> str:
    """Digest of what decides a verdict beside the candidate: another version of it must not find the old ones."""
    package = Path(__file__).parents[1]
    files = [*package.glob("harness/*.py"), *package.glob("languages/*.py"), NATIVE / "cuda_launches.cpp"]
    return digest_of([file.read_text() for file in sorted(files)])


def cuda_check(candidate: Candidate, target: Target, gpu: Gpu, sandbox: Sandbox, cache_dir: Path) -> CompileCheck:
    """Compile it, and note down what it launches on the target's search workloads for GPUs.

    Raises `UsageError` for a device of another vendor, `ToolchainError` where nvcc is missing or too old for it.
    """
    plan = Cuda().plan(candidate, gpu.hardware, _LINK, "kernel.so")
    with tempfile.TemporaryDirectory(prefix="kernelevolve-triage-") as scratch:
        Path(scratch).chmod(0o755)
        walled = _Walled(sandbox, Path(scratch) / "work", gpu)
        write_sources(Cuda().sources(candidate), walled.work)
        done = walled.run(*plan.argv, seconds=LIMITS.build_s, readable=plan.readable)
        if found := findings_of(done, Cuda(), walled.work, LIMITS):
            return CompileCheck(diagnostics=found, seconds={"nvcc": done.seconds})
        started = time.perf_counter()
        hints = warnings(done.output.replace(f"{walled.work}/", ""))
        kernels = _kernels(walled)
        if kernels is None:
            advice = "leave out what changes the library while it is linked"
            return CompileCheck(diagnostics=(Crash(message="what nvcc made can't be read", advice=advice),))
        report, own = _captured(walled, candidate, target, kernels, cache_dir)
    seconds = {"nvcc": done.seconds, "capture": time.perf_counter() - started}
    return judged(report.model_copy(update={"seconds": seconds}), gpu).model_copy(update={"hints": (*hints, *own)})


def _kernels(walled: _Walled) -> dict[str, Compiled] | None:
    """The library's kernels by symbol; None where they can't be read."""
    reader = cubin.tool("cuobjdump")
    usage, _ = (
        walled.run(str(reader), *arguments, "kernel.so", seconds=_READER_S, readable=(reader.parent,))
        for arguments in (("--dump-resource-usage",), ("-xelf", "all"))
    )
    found: dict[str, cubin.Kernel] = {}
    try:
        for file in sorted(walled.work.glob("*.cubin")):
            found |= cubin.kernels(read(file))
    except (OSError, ValueError):
        return None
    # From 9.0 on what the device reserves in each block is counted in, where a kernel has shared memory at all.
    reserved = walled.gpu.shared_reserved if walled.gpu.capability >= (9, 0) else 0
    return {
        m["symbol"]: Compiled(
            found[m["symbol"]], int(m["registers"]), int(m["stack"]), max(0, int(m["shared"]) - reserved)
        )
        for m in _USAGE.finditer(usage.output)
        if m["symbol"] in found
    }


def _captured(
    walled: _Walled, candidate: Candidate, target: Target, kernels: dict[str, Compiled], cache_dir: Path
) -> tuple[CaptureReport, tuple[str, ...]]:
    """Every launch of known kernels with what it needs, what speaks against it, and hints."""
    workloads = tuple(LaunchWorkload.of(target, w) for w in target.select("gpu", "search"))
    launcher = native_tool("cuda_launches", cache_dir, include=(toolkit().root / "include",))
    (walled.work / "job.txt").write_text(job(walled.gpu, kernels, workloads))
    done = walled.run(
        str(launcher), "./kernel.so", candidate.entry, "job.txt", "report.jsonl", seconds=LIMITS.call_s,
        readable=(launcher, ffi_folder()),
    )  # fmt: skip
    said = heard(walled.work / "report.jsonl", len(workloads))
    names = (*(w.name for w in workloads), None)
    called = [c for c in said.launches if c.symbol in kernels]
    values = {name: str(value) for name, value in Cuda().chosen(candidate).items()}
    launches = tuple(
        Launch(
            workload=workloads[c.workload].name, number=c.number, kernel=c.kernel, grid=c.grid, configuration=values,
            resources=needs, tensors=c.tensors, code=digest_of(kernels[c.symbol].kernel.code.hex()),
        )
        for c, needs in zip(called, _resources(walled, called, kernels), strict=True)
    )  # fmt: skip
    findings = [d for c in called for d in _misfits(c, kernels[c.symbol], walled.gpu, workloads[c.workload].name)]
    findings += [finding(stop, names[stop.workload]) for stop in said.stops]
    if end := end_of(done, said, LIMITS.call_s):
        findings.append(end)
    elsewhere = dict.fromkeys(c.kernel for c in called if not c.current_stream)
    hints = tuple(f"{name} runs on another stream than the current one (TVMFFIEnvGetStream)" for name in elsewhere)
    return CaptureReport(launches=launches, diagnostics=tuple(dict.fromkeys(findings)), seconds={}), hints


def _resources(walled: _Walled, called: Sequence[Called], kernels: dict[str, Compiled]) -> Iterator[Resources]:
    """What each launch needs; only kernels that are launched are disassembled."""
    symbols = list(dict.fromkeys(c.symbol for c in called))
    texts = _disassembled(walled, [kernels[symbol].kernel.code for symbol in symbols])
    counts = {symbol: _counts(text) for symbol, text in zip(symbols, texts, strict=True)}
    for c in called:
        kernel, (instructions, loop) = kernels[c.symbol], counts[c.symbol]
        yield Resources(
            registers=kernel.registers, spill_bytes=kernel.stack, shared_bytes=kernel.shared + c.dynamic_shared,
            num_warps=max(1, -(-c.threads // walled.gpu.warp_size)), instructions=instructions, loop=loop,
        )  # fmt: skip


def _disassembled(walled: _Walled, codes: Sequence[bytes]) -> list[str]:
    """nvdisasm takes most of a second to start, so it gets all code in one piece."""
    if not codes:
        return []
    (walled.work / "code.bin").write_bytes(b"".join(codes))
    reader = cubin.tool("nvdisasm")
    major, minor = walled.gpu.capability
    name = f"SM{major}{minor}{'a' if major >= 9 else ''}"
    done = walled.run(str(reader), "--binary", name, "code.bin", seconds=_READER_S, readable=(reader.parent,))
    return cubin.listing(done.output, [len(code) for code in codes])


def _counts(text: str) -> tuple[Instructions, Instructions | None]:
    loop = hot_loop(text)
    return nvidia_instructions(text), nvidia_instructions(loop) if loop else None


def _misfits(c: Called, compiled: Compiled, gpu: Gpu, workload: str) -> Iterator[Diagnostic]:
    """Why a device would refuse the launch, beyond what holds for every language."""

    def limit(resource: str, most: int, message: str, advice: str) -> LimitExceeded:
        return LimitExceeded(
            message=f"{c.kernel} is launched with {message}", advice=advice, resource=resource, limit=most,
            workload=workload,
        )  # fmt: skip

    bound = compiled.kernel.most_threads
    if bound is not None and c.threads > bound:
        message = f"{c.threads} threads a block: its __launch_bounds__ allow {bound}"
        yield limit("threads", bound, message, "launch what the kernel promises, or promise more")
    needed = compiled.shared + c.dynamic_shared
    if c.dynamic_shared > c.allowed_shared and needed <= gpu.shared_per_block:
        message = f"{needed} bytes of shared memory: {_DECLARED} are had without asking"
        ask = "before the launch: cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)"
        yield limit("shared_memory", _DECLARED, message, ask)
    if min(*c.grid, *c.block) < 1:
        message = f"grid {c.grid} and block {c.block}: a side is 0"
        yield limit("grid", 1, message, "leave out launches that have nothing to do")
    if c.block[2] > _DEPTH:
        yield limit("threads", _DEPTH, f"block {c.block}: the third side takes {_DEPTH}", "put the longest side first")
