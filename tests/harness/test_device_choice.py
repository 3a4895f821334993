"""Several GPUs: the judge sees the one that its job is for, and so does all that it starts."""

import os

import pytest

from kernelevolve.errors import UsageError
from kernelevolve.hardware import amd, nvidia
from kernelevolve.harness import device_choice
from kernelevolve.harness.device_choice import narrow
from kernelevolve.resources import gpu_environment

MIXED = nvidia.describe(
    [
        {"uuid": "GPU-aa11", "name": "NVIDIA H200", "memory.total": "143771", "compute_cap": "9.0"},
        {"uuid": "GPU-bb22", "name": "NVIDIA A100-SXM4-80GB", "memory.total": "81920", "compute_cap": "8.0"},
        {"uuid": "GPU-cc33", "name": "NVIDIA A100-SXM4-80GB", "memory.total": "81920", "compute_cap": "8.0"},
    ]
)
H200, A100 = MIXED[0].hardware, MIXED[1].hardware
CARD = '{"asic": {"market_name": "AMD Instinct MI300X", "num_compute_units": 304, "target_graphics_version": "gfx942"}}'


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    device_choice._narrow.cache_clear()
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)
    monkeypatch.setattr(nvidia, "look", lambda: MIXED)
    monkeypatch.setattr(amd, "look", lambda: amd.describe(f"[{CARD}, {CARD}]"))


def test_the_first_of_the_product_is_left(monkeypatch):
    narrow(A100)
    assert gpu_environment() == {"CUDA_VISIBLE_DEVICES": "GPU-bb22"}
    device_choice._narrow.cache_clear()
    narrow(A100)  # again, from what it has left itself
    assert gpu_environment() == {"CUDA_VISIBLE_DEVICES": "GPU-bb22"}


def test_the_one_that_the_user_chose_is_left_by_its_name(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    narrow(A100)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-cc33"


def test_one_that_may_not_be_seen_is_refused(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,2")
    with pytest.raises(UsageError, match=r"nvidia-h200 is not among.*nvidia-a100-sxm4-80gb.*CUDA_VISIBLE_DEVICES"):
        narrow(H200)


def test_where_no_tool_answers_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(nvidia, "look", lambda: ())
    narrow(H200)
    assert gpu_environment() == {}


def test_a_device_of_amd_is_chosen_in_the_way_that_its_profilers_bear(monkeypatch):
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    (mi300x, _) = amd.look()
    narrow(mi300x.hardware)
    assert gpu_environment() == {"ROCR_VISIBLE_DEVICES": "1"}
