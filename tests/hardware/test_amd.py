"""Answers in the shapes that amd-smi (ROCm 6.0 to 7.1) and rocm-smi (5.7, 6.4) document; values are made up."""

import stat

import pytest

from kernelevolve import hardware
from kernelevolve.hardware import amd

AMD_SMI = """\
WARNING: User is missing the following required groups: render, video
{
  "gpu_data": [
    {
      "gpu": 0,
      "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002", "oam_id": 0, "num_compute_units": 304,
               "target_graphics_version": "gfx942"},
      "vram": {"type": "HBM3", "vendor": "N/A", "size": {"value": 196592, "unit": "MB"}, "bit_width": 8192},
      "driver": {"name": "amdgpu", "version": "6.12.12"}
    },
    {
      "gpu": 1,
      "asic": {"market_name": "AMD Instinct MI300X", "vendor_id": "0x1002", "oam_id": 1, "num_compute_units": 304,
               "target_graphics_version": "gfx942"},
      "vram": {"type": "HBM3", "vendor": "N/A", "size": {"value": 196592, "unit": "MB"}, "bit_width": 8192},
      "driver": {"name": "amdgpu", "version": "6.12.12"}
    }
  ]
}
"""

OLDER_AMD_SMI = """\
[
  {
    "gpu": 0,
    "asic": {"market_name": "AMD Instinct MI355X", "num_compute_units": 256, "target_graphics_version": "gfx950"},
    "vram": {"type": "HBM3E", "size": {"value": 294896, "unit": "MB"}},
    "driver": {"driver_name": "amdgpu", "driver_version": "6.8.5"}
  }
]
"""

ROCM_SMI = """\
{"card0": {"Card Series": "AMD Instinct MI300X OAM", "Card Model": "0x74a1", "Card Vendor": "AMD",
 "Card SKU": "M3000100", "GFX Version": "gfx942", "VRAM Total Memory (B)": "206141652992",
 "VRAM Total Used Memory (B)": "299687936"}, "system": {"Driver version": "6.8.5"}}
"""

PARTITIONED = AMD_SMI.replace('"num_compute_units": 304', '"num_compute_units": 38')


def test_amd_smi_becomes_one_record_for_each_product():
    (found,) = amd.parse(AMD_SMI)
    assert (found.key, found.vendor, found.architecture, found.cores) == ("amd-mi300x", "amd", "gfx942", 304)
    assert found.aliases == ("amd-instinct-mi300x",)
    assert found.memory_bytes == 196592 << 20
    assert found.driver == "6.12.12"


def test_the_list_of_older_versions_is_read_too():
    (found,) = amd.parse(OLDER_AMD_SMI)
    assert (found.key, found.cores, found.driver) == ("amd-mi355x", 256, "6.8.5")


def test_rocm_smi_names_the_same_device():
    (found,) = amd.parse(ROCM_SMI)
    assert (found.key, found.architecture, found.cores) == ("amd-mi300x", "gfx942", 304)
    assert found.memory_bytes == 206141652992


def test_a_part_of_a_device_is_a_device_apart():
    (part,) = amd.parse(PARTITIONED)
    assert part.key == "amd-mi300x-38cu"
    assert part.aliases == ()
    assert part.cores == 38


@pytest.mark.parametrize("text", ["", "No AMD GPUs detected", "[WARNING] something {", '{"gpu_data": "N/A"}', "[1, 2]"])
def test_an_answer_without_devices_is_no_device(text):
    assert amd.parse(text) == ()


def test_a_device_without_an_architecture_is_left_out_and_named(caplog):
    assert amd.parse(AMD_SMI.replace('"gfx942"', '"N/A"')) == ()
    assert "update ROCm" in caplog.text


def script(folder, name, text, code=0):
    program = folder / name
    program.write_text(f"#!/bin/sh\n/bin/cat <<'EOF'\n{text}\nEOF\nexit {code}\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)


def test_the_older_tool_is_asked_where_the_newer_one_fails(tmp_path, monkeypatch, caplog):
    script(tmp_path, "amd-smi", "AMDSMI_STATUS_NO_DRV: driver not loaded", code=1)
    script(tmp_path, "rocm-smi", ROCM_SMI)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [h.key for h in amd.detect()] == ["amd-mi300x"]
    assert "driver not loaded" in caplog.text


def test_amd_and_nvidia_devices_of_a_machine_are_all_listed_and_found_by_any_name(tmp_path, monkeypatch):
    script(tmp_path, "amd-smi", AMD_SMI)
    script(tmp_path, "nvidia-smi", "GPU-1, NVIDIA A100-SXM4-80GB, 81920, 570.124.06, 8.0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert [h.key for h in hardware.detect_all()[1:]] == ["nvidia-a100-sxm4-80gb", "amd-mi300x"]
    assert hardware.find("amd-instinct-mi300x").vendor == "amd"
    assert hardware.find("nvidia-a100").key == "nvidia-a100-sxm4-80gb"
    assert hardware.find("sm_80").key == "nvidia-a100-sxm4-80gb"
    assert hardware.find("gfx942").key == "amd-mi300x"
