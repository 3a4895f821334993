"""Devices that need not be here."""

import pytest

from kernelevolve.errors import UnknownNameError, UsageError
from kernelevolve.hardware import amd, architectures, cpu, nvidia
from kernelevolve.hardware.devices import DEVICES, known, of


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("nvidia-h200", "sm_90"), ("nvidia-h100", "sm_90"), ("nvidia-a100", "sm_80"), ("nvidia-b200", "sm_100"),
        ("amd-mi300x", "gfx942"), ("amd-mi355x", "gfx950"),
    ],
)  # fmt: skip
def test_a_device_is_known_by_its_usual_name(name: str, architecture: str) -> None:
    assert known(name).architecture == architecture


def test_an_unknown_name_gets_close_ones() -> None:
    with pytest.raises(UnknownNameError) as caught:
        known("nvidia-h20O")
    assert "nvidia-h200" in caught.value.remedy
    with pytest.raises(UnknownNameError, match="amd-mi300x"):
        known("something else")


def test_no_name_stands_for_two_devices() -> None:
    names = [name for gpu in DEVICES for name in (gpu.key, *gpu.aliases)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("gpu", DEVICES, ids=lambda gpu: gpu.key)
def test_a_block_never_gets_more_than_a_multiprocessor_has(gpu) -> None:
    assert gpu.shared_per_block + gpu.shared_reserved <= gpu.shared_per_multiprocessor
    assert gpu.threads_per_block <= gpu.warps_per_multiprocessor * gpu.warp_size
    assert gpu.hardware.device == "gpu"
    assert gpu.hardware.ceilings is None  # a data sheet is no measurement


def test_capabilities_are_those_that_torch_reports() -> None:
    assert [known(n).capability for n in ("nvidia-a100", "nvidia-b200", "amd-mi300x")] == [(8, 0), (10, 0), (9, 4)]


@pytest.mark.parametrize("gpu", DEVICES, ids=lambda gpu: gpu.key)
def test_peaks_are_those_of_dense_arithmetic(gpu) -> None:
    lanes = 64 if gpu.architecture == "sm_80" else 128  # multiply-adds a clock and multiprocessor
    computed = gpu.multiprocessors * lanes * 2 * gpu.clock_mhz / 1e6
    assert gpu.peak_tflops["float32"] == pytest.approx(computed, rel=0.02)
    assert gpu.peak_tflops["float64"] < gpu.peak_tflops["float32"] < gpu.peak_tflops["float16"]
    fp8 = gpu.peak_tflops.get("float8_e4m3fn")
    assert fp8 is None or fp8 == pytest.approx(2 * gpu.peak_tflops["bfloat16"], rel=0.01)  # twice, not four times


@pytest.mark.parametrize("gpu", DEVICES, ids=lambda gpu: gpu.key)
def test_a_known_device_has_the_limits_of_its_architecture(gpu) -> None:
    limits = architectures.nearest(gpu.architecture).model_dump(exclude={"name"})
    assert {name: getattr(gpu, name) for name in limits} == limits


def test_a_known_device_is_itself() -> None:
    (h100,) = nvidia.parse("NVIDIA H100 80GB HBM3, 81559, 570.124.06, 9.0")
    assert of(h100) == known("nvidia-h100")


def test_an_unknown_device_has_the_limits_of_its_architecture_and_its_own_key(caplog) -> None:
    (l40s,) = nvidia.parse("NVIDIA L40S, 46068, 570.124.06, 8.9")
    found = of(l40s)
    assert (found.key, found.product, found.architecture) == ("nvidia-l40s", "NVIDIA L40S", "sm_89")
    assert (found.multiprocessors, found.warps_per_multiprocessor, found.shared_per_block) == (142, 48, 99 << 10)
    assert found.memory_bytes == l40s.memory_bytes
    assert "NVIDIA L40S has no row" in caplog.text


def test_an_unknown_architecture_gets_the_nearest_and_says_so(caplog) -> None:
    (odd,) = nvidia.parse("NVIDIA Z9000, 99999, 700.1, 13.0")
    found = of(odd)
    assert (found.key, found.architecture, found.shared_per_block) == ("nvidia-z9000", "sm_130", 99 << 10)
    assert "sm_120, the nearest to sm_130" in caplog.text
    assert found.key not in {name for gpu in DEVICES for name in (gpu.key, *gpu.aliases)}


def test_a_part_of_a_device_is_sized_as_the_part(caplog) -> None:
    whole = {"uuid": "G", "name": "NVIDIA H200", "memory.total": "143771", "compute_cap": "9.0"}
    (part,) = nvidia.describe([whole], "GPU 0: NVIDIA H200 (UUID: G)\n  MIG 3g.71gb     Device  0: (UUID: M)\n")
    found = of(part.hardware)
    assert (found.multiprocessors, found.memory_bytes >> 30) == (60, 71)
    assert found.peak_tflops["bfloat16"] < known("nvidia-h200").peak_tflops["bfloat16"] / 2
    assert "MIG 3g.71gb" in caplog.text


def test_the_other_vendor_works_the_same_way() -> None:
    (mi250,) = amd.parse(
        '[{"asic": {"market_name": "AMD Instinct MI250X", "num_compute_units": 110, '
        '"target_graphics_version": "gfx90a"}, "vram": {"size": {"value": 65520, "unit": "MB"}}}]'
    )
    assert (of(mi250).key, of(mi250).warp_size, of(mi250).multiprocessors) == ("amd-mi250x", 64, 110)


@pytest.mark.parametrize(
    ("name", "key", "shared_kib"),
    [("sm_90", "nvidia-sm-90", 227), ("sm_120a", "nvidia-sm-120", 99), ("sm_130", "nvidia-sm-130", 99),
     ("gfx942", "amd-gfx942", 64), ("gfx950:sramecc+:xnack-", "amd-gfx950", 160)],
)  # fmt: skip
def test_a_bare_architecture_stands_for_a_device_that_is_nobodys_key(name, key, shared_kib, caplog) -> None:
    found = known(name)
    assert (found.key, found.shared_per_block >> 10) == (key, shared_kib)
    assert found.architecture == architectures.plain(name)
    assert found.architecture in caplog.text
    assert known(found.architecture) == found
    caplog.clear()
    assert known(key) == found  # a process that is given the key of a stand-in needn't say it again
    assert not caplog.text


def test_a_cpu_is_no_gpu() -> None:
    with pytest.raises(UsageError, match="no GPU"):
        of(cpu.detect())


@pytest.mark.parametrize("name", ["sm_", "gfx9", "90", "sm90", "nvidia-h200"])
def test_what_is_no_architecture_is_not_taken_for_one(name) -> None:
    assert architectures.vendor_of(name) is None


def test_every_architecture_that_torch_reports_has_its_version() -> None:
    assert [architectures.version(n)[:2] for n in ("sm_75", "sm_103", "gfx90a", "gfx1100")] == [
        (7, 5), (10, 3), (9, 0), (11, 0),
    ]  # fmt: skip
