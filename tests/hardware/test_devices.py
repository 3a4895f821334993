"""Devices that need not be here."""

import pytest

from kernelevolve.errors import UnknownNameError
from kernelevolve.hardware.devices import DEVICES, known


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
