"""The measuring itself, on the CPU with tiny sizes: rates are positive and named; nothing is said about their size."""

import json
import sys
from contextlib import contextmanager

import pytest
import torch

from kernelevolve import hardware
from kernelevolve.errors import ToolchainError
from kernelevolve.hardware import ceilings, gpu_ceilings, nvidia, torch_build

TINY = gpu_ceilings.Plan(footprints=(1 << 12, 1 << 14), sides=(16, 32), seconds=0.001)
CPU = torch.device("cpu")
(H200,) = nvidia.parse("NVIDIA H200, 143771, 570.124.06, 9.0")


def test_what_is_measured_becomes_ceilings():
    document = gpu_ceilings.measure(CPU, TINY)
    read = ceilings._read(json.dumps(document), threads=1)
    assert [b.footprint_bytes for b in read.bandwidths] == [1 << 12, 1 << 14]
    assert all(b.gbps > 0 for b in read.bandwidths)
    assert {"float64", "float32", "tf32", "float16", "bfloat16"} <= set(read.peak_gflops)
    assert all(rate > 0 for rate in read.peak_gflops.values())
    assert read.roofline_us(10**9, 10**6, 1 << 20, "bfloat16") > 0


def test_float32_is_bounded_by_its_own_units_or_by_three_products_in_tf32(monkeypatch):
    rates = {"float32_fma": 60.0, "tf32": 450.0}
    monkeypatch.setattr(gpu_ceilings, "_fastest", lambda meter, name, make: rates.get(name))
    assert gpu_ceilings.peaks(gpu_ceilings.Meter(CPU, TINY))["float32"] == 150.0
    rates["tf32"] = 90.0
    assert gpu_ceilings.peaks(gpu_ceilings.Meter(CPU, TINY))["float32"] == 60.0


def test_measuring_leaves_the_precision_of_products_as_it_was():
    before = torch.get_float32_matmul_precision()
    gpu_ceilings.peaks(gpu_ceilings.Meter(CPU, TINY))
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("gib", [0.1, 4, 24, 80, 192])
def test_sizes_fit_the_memory_and_exceed_the_cache_where_they_can(gib):
    memory = int(gib * 2**30)
    sizes = gpu_ceilings.plan(memory)
    assert max(sizes.footprints) <= memory / 8
    assert 3 * 8 * max(sizes.sides) ** 2 <= memory / 4
    assert list(sizes.footprints) == sorted(sizes.footprints)
    if gib >= 24:
        assert max(sizes.footprints) >= 4 * (256 << 20)
        assert max(sizes.sides) == 8192


def test_a_size_that_does_not_fit_is_left_out_and_noted():
    meter = gpu_ceilings.Meter(CPU, TINY)

    def make(side):
        if side > 16:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return lambda: None

    assert gpu_ceilings._fastest(meter, "float16", make) > 0
    assert "out of memory" in meter.notes[0]


def test_an_element_type_that_the_device_cannot_multiply_is_left_out_and_noted():
    meter = gpu_ceilings.Meter(CPU, TINY)

    def make(side):
        raise RuntimeError("torch._scaled_mm is only supported on CUDA devices with compute capability >= 9.0 or 8.9")

    assert gpu_ceilings._fastest(meter, "float8_e4m3fn", make) is None
    assert "8.9" in meter.notes[0]


def test_after_its_time_only_one_size_of_each_is_measured():
    late = gpu_ceilings.Plan(footprints=(1 << 12, 1 << 14), sides=(16, 32), seconds=0.001, total_seconds=0.0)
    meter = gpu_ceilings.Meter(CPU, late)
    assert list(gpu_ceilings.bandwidths(meter)) == [1 << 12]
    calls = []
    gpu_ceilings._fastest(meter, "float16", lambda side: calls.append(side) or (lambda: None))
    assert calls == [16]


class Recorded:
    """Stands for a stream: while it captures, calls are kept instead of made."""

    calls = 0
    capturing = False
    replays = 0
    refuses = False

    def call(self):
        if self.capturing and self.refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        self.calls += 1

    def install(self, monkeypatch):
        stream = self

        class Event:
            def __init__(self, enable_timing):
                assert enable_timing

            def record(self):
                self.calls, self.replays = stream.calls, stream.replays

            def synchronize(self):
                pass

            def elapsed_time(self, other):  # milliseconds: one for each call, ten for each replay
                return (other.calls - self.calls) * 1.0 + (other.replays - self.replays) * 10.0

        class Graph:
            def replay(self):
                stream.replays += 1

        @contextmanager
        def capture(graph):
            stream.capturing = True
            try:
                yield
            finally:
                stream.capturing = False

        monkeypatch.setattr(torch.cuda, "Event", Event)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", capture)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)


def test_on_a_gpu_calls_are_timed_by_events_as_one_graph(monkeypatch):
    stream = Recorded()
    stream.install(monkeypatch)
    meter = gpu_ceilings.Meter(torch.device("cuda"), TINY)
    # A call takes 1 ms, so a graph holds five; a replay takes 10 ms.
    assert meter.seconds(stream.call) == pytest.approx(0.002)
    assert stream.replays >= 3
    assert meter.notes == []


def test_calls_that_cannot_be_captured_are_timed_in_a_loop(monkeypatch):
    stream = Recorded()
    stream.refuses = True
    stream.install(monkeypatch)
    meter = gpu_ceilings.Meter(torch.device("cuda"), TINY)
    assert meter.seconds(stream.call) == pytest.approx(0.001)
    assert "capturing" in meter.notes[0]


def test_the_device_of_the_product_is_measured():
    names = ["NVIDIA A100-SXM4-80GB", "NVIDIA H200"]
    assert gpu_ceilings.choose(names, "NVIDIA H200") == 1
    assert gpu_ceilings.choose(names, "another spelling") == 0


def child(folder, body):
    """An interpreter that does that instead of measuring."""
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return str(program)


DOCUMENT = '{"read_gbps": {"2097152": 9000.0, "2147483648": 4000.0}, "peak_gflops": {"bfloat16": 7e5}, "notes": ["n"]}'


def test_ceilings_of_a_gpu_are_measured_once_in_a_process_of_its_own_and_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", child(tmp_path, f"echo \"$@\" >> {tmp_path}/ran; echo '{DOCUMENT}'"))
    found = ceilings.cached(H200, 64, tmp_path)
    assert found.ceilings.bandwidth_gbps(1 << 22) == 9000.0
    assert found.ceilings.bandwidth_gbps(1 << 32) == 4000.0
    assert ceilings.cached(H200, 1, tmp_path) == found  # threads are no matter for a GPU
    assert (tmp_path / "ran").read_text() == "-m kernelevolve.hardware.gpu_ceilings NVIDIA H200\n"
    newer = H200.model_copy(update={"driver": "580.1"})
    ceilings.cached(newer, 1, tmp_path)
    assert (tmp_path / "ran").read_text().count("\n") == 2


def test_a_gpu_of_this_machine_is_measured_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", child(tmp_path, f"echo '{DOCUMENT}'"))
    monkeypatch.setattr(nvidia, "detect", lambda: (H200,))
    assert hardware.measured("nvidia-h200-sxm5", None, tmp_path).ceilings.peak_gflops == {"bfloat16": 7e5}


FAILURES = {
    "AssertionError: Torch not compiled with CUDA enabled": "build of torch for CUDA",
    "RuntimeError: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver by "
    "downloading and installing a new version": "update the driver",
    "RuntimeError: Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU": "--gpus all",
    "RuntimeError: No HIP GPUs are available": "HIP_VISIBLE_DEVICES",
    "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver / cuda "
    "driver combination": "kernel module",
    "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized": "fabricmanager",
    "torch.AcceleratorError: CUDA error: no kernel image is available for execution on the device": "newer build",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB": "nvidia-smi",
    "torch.AcceleratorError: CUDA error: all CUDA-capable devices are busy or unavailable": "compute mode",
    "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered": "reset",
    "ModuleNotFoundError: No module named 'torch'": "pip install torch",
}


@pytest.mark.parametrize(("said", "remedy"), FAILURES.items(), ids=list(FAILURES.values()))
def test_a_gpu_that_cannot_be_used_is_explained(said, remedy, tmp_path, monkeypatch):
    trace = (
        f"Traceback (most recent call last):\n{said}\nCompile with `TORCH_USE_CUDA_DSA` to enable device-side asserts"
    )
    monkeypatch.setattr(sys, "executable", child(tmp_path, f"cat >&2 <<'EOF'\n{trace}\nEOF\nexit 1"))
    with pytest.raises(ToolchainError) as caught:
        ceilings.measure(H200, 1)
    assert remedy in caught.value.remedy
    assert "nvidia-h200" in caught.value.message
    assert said.split(": ", 1)[1][:40] in caught.value.message


def test_what_nobody_has_heard_of_is_quoted():
    said = "Traceback\ntorch.AcceleratorError: CUDA error: something new\nFor debugging consider this and that"
    assert torch_build.explain(said).message == "torch.AcceleratorError: CUDA error: something new"
    assert torch_build.explain("").message == "nothing was said"


def test_a_measurement_that_never_ends_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", child(tmp_path, "exec sleep 60"))
    monkeypatch.setattr(ceilings, "_GPU_SECONDS", 0.2)
    with pytest.raises(ToolchainError, match=r"no end within 0\.2 seconds"):
        ceilings.measure(H200, 1)


def test_this_torch_is_looked_at_in_a_process_of_its_own():
    found = torch_build.probe()
    assert found.version == torch.__version__
    if torch.version.cuda is None and torch.version.hip is None:
        assert torch_build.explain(found.problem).message.startswith("torch is built without GPU support")


@pytest.mark.parametrize(("body", "problem"), [("echo no >&2; exit 1", "no"), ("exit 3", "exit code 3")])
def test_a_torch_that_does_not_even_start_is_a_problem(body, problem, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", child(tmp_path, body))
    assert torch_build.probe().problem == problem
