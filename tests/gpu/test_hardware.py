"""Ceilings, state, health and profilers on a real device. No assertion is about a speed, only about sense."""

import subprocess
import sys
import time

import pytest
import torch

from kernelevolve import hardware
from kernelevolve.hardware import devices, gpu_state, torch_build
from kernelevolve.harness.device_faults import fault_of
from kernelevolve.harness.device_health import Healthy, ensure, probe, uncorrected_errors
from kernelevolve.harness.profilers import Ncu, Proton, Refused, Rocprof
from kernelevolve.harness.profilers.proton import recording
from kernelevolve.schema import DeviceFault, LimitExceeded

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def gpu():
    found = [machine for machine in hardware.detect_all() if machine.device == "gpu"]
    assert found, "there is no GPU here, or its tool (nvidia-smi, amd-smi) doesn't answer"
    return found[0]


@pytest.fixture(scope="module")
def measured(gpu, tmp_path_factory):
    return hardware.measured(gpu.key, None, tmp_path_factory.mktemp("cache"))


def busy(seconds):
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.float16)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(20):
            a @ a
        torch.cuda.synchronize()


def test_what_the_tool_says_of_the_device_is_what_torch_says(gpu):
    properties = torch.cuda.get_device_properties(0)
    if gpu.vendor == "nvidia":
        assert properties.name == gpu.product
    assert gpu.memory_bytes == pytest.approx(properties.total_memory, rel=0.1)
    if gpu.cores:
        assert gpu.cores == properties.multi_processor_count


def test_the_limits_in_the_table_are_those_of_the_device(gpu):
    row, properties = devices.of(gpu), torch.cuda.get_device_properties(0)
    assert row.warp_size == properties.warp_size
    assert row.warps_per_multiprocessor * row.warp_size == properties.max_threads_per_multi_processor
    if gpu.vendor == "nvidia":
        assert row.capability == torch.cuda.get_device_capability(0)
        assert row.shared_per_multiprocessor == properties.shared_memory_per_multiprocessor
        assert row.shared_per_block == properties.shared_memory_per_block_optin
        assert row.registers_per_multiprocessor == properties.regs_per_multiprocessor


def test_torch_computes_on_it():
    build = torch_build.probe()
    assert build.problem is None
    assert len(build.devices) == torch.cuda.device_count()


def test_ceilings_are_of_the_order_of_the_datasheet(gpu, measured):
    row, ceilings = devices.of(gpu), measured.ceilings
    largest = ceilings.bandwidths[-1]
    assert largest.footprint_bytes > 4 * row.cache_bytes
    assert 0.4 < largest.gbps / row.memory_gbps < 1.1
    assert ceilings.bandwidth_gbps(row.cache_bytes // 4) >= largest.gbps
    for dtype in ("float16", "bfloat16"):
        assert 0.3 < ceilings.peak_gflops[dtype] / (1e3 * row.peak_tflops[dtype]) < 1.2
    assert ceilings.peak_gflops["float32"] >= ceilings.peak_gflops["float32_fma"]
    if "float8_e4m3fn" in row.peak_tflops and gpu.vendor == "nvidia":
        assert ceilings.peak_gflops["float8_e4m3fn"] > ceilings.peak_gflops["bfloat16"]


def test_ceilings_are_kept(gpu, measured, tmp_path):
    first = hardware.measured(gpu.key, None, tmp_path)
    assert hardware.measured(gpu.key, None, tmp_path) == first


def test_a_watch_sees_the_device_at_work(gpu):
    with gpu_state.Watch(gpu, interval_s=0.2) as watch:
        busy(2.0)
    state = watch.state
    assert state is not None
    assert state.sm_clock_mhz[1] > 300
    assert 10 < state.temperature_c < 110
    assert not watch.new_errors


def test_a_device_that_works_is_healthy(gpu):
    health = probe(gpu, errors_before=uncorrected_errors(gpu))
    assert health == Healthy()
    ensure(health, gpu)


WILD = """
import torch, triton, triton.language as tl
@triton.jit
def wild(x):
    tl.store(x + (1 << 40), 1.0)
wild[(1,)](torch.zeros(1, device="cuda"))
torch.cuda.synchronize()
"""
GREEDY = "import torch; torch.empty(1 << 50, dtype=torch.uint8, device='cuda')"


def said_by(folder, source):
    (folder / "program.py").write_text(source)  # triton reads the source of what it compiles
    ended = subprocess.run([sys.executable, str(folder / "program.py")], capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    return ended.stderr


def test_a_wild_store_is_named_and_the_device_survives_it(gpu, tmp_path):
    before = uncorrected_errors(gpu)
    found = fault_of(said_by(tmp_path, WILD), "w")
    assert isinstance(found, DeviceFault)
    assert found.name == "CUDA_ERROR_ILLEGAL_ADDRESS"
    assert probe(gpu, errors_before=before) == Healthy()


def test_too_large_an_allocation_is_a_limit(gpu, tmp_path):
    found = fault_of(said_by(tmp_path, GREEDY), "w", gpu.memory_bytes)
    assert isinstance(found, LimitExceeded)
    assert found.limit == pytest.approx(gpu.memory_bytes, rel=0.1)


PROFILED = """
import torch
a = torch.randn(2048, 2048, device="cuda", dtype=torch.float16)
for _ in range(3):
    a @ a
torch.cuda.synchronize()
"""


def test_proton_records_what_this_process_launches(tmp_path):
    a = torch.randn(1024, 1024, device="cuda", dtype=torch.float16)
    a @ a
    with recording(tmp_path / "one"):
        for _ in range(5):
            a @ a
        torch.cuda.synchronize()
    found = Proton().parse(Proton().read(tmp_path / "one"), "w")
    assert not isinstance(found, Refused)
    assert found[0].launches == 5
    assert found[0].duration_us > 0


def test_the_vendor_s_profiler_tells_the_bound_or_why_it_does_not(gpu, tmp_path):
    profiler = Ncu() if gpu.vendor == "nvidia" else Rocprof()
    if not profiler.available():
        assert Proton().available()
        return
    (tmp_path / "program.py").write_text(PROFILED)
    command = profiler.wrap([sys.executable, str(tmp_path / "program.py")], tmp_path / "report")
    subprocess.run(command, capture_output=True, timeout=280)
    found = profiler.parse(profiler.read(tmp_path / "report"))
    if isinstance(found, Refused):
        assert "permission" in found.message or "may not read" in found.message or "another tool" in found.message
        return
    product = max(found, key=lambda counters: counters.duration_us or 0.0)
    assert product.bound is not None
    assert product.metrics["occupancy_pct"] > 0
