"""Machines with several GPUs: which one is meant."""

import json
import stat

import pytest

from kernelevolve import hardware
from kernelevolve.hardware import amd, gpu_state, nvidia
from kernelevolve.hardware.present import visible

LISTED = """\
GPU 0: NVIDIA H200 (UUID: GPU-aa11)
GPU 1: NVIDIA A100-SXM4-80GB (UUID: GPU-bb22)
  MIG 3g.40gb     Device  0: (UUID: MIG-cc33)
  MIG 3g.40gb     Device  1: (UUID: MIG-dd44)
GPU 2: NVIDIA H200 (UUID: GPU-ee55)
"""
MACHINE = nvidia.describe(
    [
        {"uuid": "GPU-aa11", "name": "NVIDIA H200", "memory.total": "143771", "compute_cap": "9.0"},
        {"uuid": "GPU-bb22", "name": "NVIDIA A100-SXM4-80GB", "memory.total": "81920", "compute_cap": "8.0"},
        {"uuid": "GPU-ee55", "name": "NVIDIA H200", "memory.total": "143771", "compute_cap": "9.0"},
    ],
    LISTED,
)


def test_parts_are_known_by_their_own_name_to_the_runtime_and_by_the_whole_s_to_the_tool():
    assert [(p.tool, p.runtime) for p in MACHINE] == [
        ("GPU-aa11", "GPU-aa11"), ("GPU-bb22", "MIG-cc33"), ("GPU-bb22", "MIG-dd44"), ("GPU-ee55", "GPU-ee55"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chosen", "left"),
    [
        (None, ["GPU-aa11", "MIG-cc33", "MIG-dd44", "GPU-ee55"]),
        ("2,0", ["GPU-ee55", "GPU-aa11"]),
        ("GPU-ee", ["GPU-ee55"]),
        ("MIG-dd44", ["MIG-dd44"]),
        ("1", ["MIG-cc33"]),  # a divided GPU is its first part
        ("0, 7, 2", ["GPU-aa11"]),  # it ends at what names nothing
        ("-1", []),
        ("", []),
    ],
)
def test_the_environment_chooses_and_orders(chosen, left):
    found = visible(MACHINE, chosen)
    assert [p.runtime for p in found] == left


@pytest.fixture
def machine(tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    program = tmp_path / "nvidia-smi"
    program.write_text(f"""#!/bin/sh
echo "$*" >> {asked}
case "$*" in
  -L) /bin/cat <<'EOF'
{LISTED}EOF
;;
  *compute_cap*)
    echo 'GPU-aa11, NVIDIA H200, 143771, 570.1, 9.0'
    echo 'GPU-bb22, NVIDIA A100-SXM4-80GB, 81920, 570.1, 8.0'
    echo 'GPU-ee55, NVIDIA H200, 143771, 570.1, 9.0';;
  *) echo '1665, 3201, 66, 698.42, 0x4, 0x4, 0, None';;
esac
""")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return asked


def test_devices_are_numbered_as_torch_does(machine, monkeypatch):
    assert [p.hardware.key for p in hardware.visible_devices("nvidia")] == [
        "nvidia-h200", "nvidia-a100-sxm4-80gb-mig-3g-40gb", "nvidia-a100-sxm4-80gb-mig-3g-40gb", "nvidia-h200",
    ]  # fmt: skip
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-dd44,2")
    found = hardware.visible_devices("nvidia")
    assert [p.runtime for p in found] == ["MIG-dd44", "GPU-ee55"]


def test_the_device_that_is_used_is_the_one_that_is_watched(machine, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
    h200 = hardware.find("nvidia-h200")
    assert gpu_state.sample(h200).power_w == 698.42
    assert machine.read_text().splitlines()[-1].endswith("--id=GPU-ee55")


def test_a_vendor_without_gpus_has_none_to_see():
    assert hardware.visible_devices("intel") == ()


def test_devices_of_amd_are_numbered(monkeypatch):
    asic = {"market_name": "AMD Instinct MI300X", "num_compute_units": 304, "target_graphics_version": "gfx942"}
    found = amd.describe(json.dumps({"gpu_data": [{"asic": asic}, {"asic": asic}]}))
    assert [p.tool for p in found] == ["0", "1"]
    monkeypatch.setattr(amd, "look", lambda: found)
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    assert hardware.visible_devices("amd")[0].tool == "1"
