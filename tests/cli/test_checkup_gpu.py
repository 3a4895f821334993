"""What `doctor` says of machines with GPUs: their tools are scripts that answer as the real ones do."""

import json
import sys
from pathlib import Path

import pytest

from kernelevolve.cli import checkup_gpu
from kernelevolve.cli.app import main
from kernelevolve.errors import ToolchainError
from kernelevolve.hardware import devices
from kernelevolve.languages import cuda

SMI = """\
case "$*" in
  *clocks.sm*) echo '{state}';;
  *compute_cap*) echo 'GPU-0a, {product}, 143771, 570.124.06, {capability}';;
  -L) echo 'GPU 0: {product} (UUID: GPU-0a)';;
  *) echo '| NVIDIA-SMI 570.124.06    Driver Version: 570.124.06    CUDA Version: {cuda} |';;
esac
"""
AMD = """\
case "$*" in
  static*) echo '{"gpu_data": [{"asic": {"market_name": "AMD Instinct MI300X", "num_compute_units": 304,
    "target_graphics_version": "gfx942"}, "vram": {"size": {"value": 196592, "unit": "MB"}}}]}';;
  *) echo '{"gpu_data": [{"temperature": {"hotspot": {"value": 87, "unit": "C"}}}]}';;
esac
"""
FINE = '{"version": "2.13.0+cu130", "cuda": "13.0", "devices": ["NVIDIA H200"]}'
TOOLS = cuda.Toolkit(Path("nvcc"), Path("/usr/local/cuda"), "13.0.88", frozenset({80, 90, 100, 120}))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose vendor's tools and torch say what they are told to."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(cuda, "toolkit", lambda: TOOLS)
    devices._say.cache_clear()

    def script(name, body):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
        return str(tmp_path / name)

    def build(*, product="NVIDIA H200", capability="9.0", runs="13.0", state="345, 2619, 31, 71.5, 0x1, 0x1, 0, None",
              torch=FINE, tools=("ncu",), vendor="nvidia"):  # fmt: skip
        if vendor == "nvidia":
            script("nvidia-smi", SMI.format(product=product, capability=capability, cuda=runs, state=state))
        else:
            script("amd-smi", AMD)
        monkeypatch.setattr(sys, "executable", script("python", f"echo '{torch}'"))
        for tool in tools:
            script(tool, "")

    return build


def rows(capsys):
    main(["doctor", "--json"])
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_a_machine_with_everything_has_nothing_to_complain_about(machine, capsys):
    machine()
    found = rows(capsys)
    for name in ("gpu", "gpu state", "nvcc", "ncu", "torch on the gpu"):
        assert found[name]["state"] == "ok", found[name]
    assert "nvidia-h200: NVIDIA H200, sm_90, 140 GiB, driver 570.124.06" in found["gpu"]["found"]
    assert found["gpu state"]["found"] == "345 MHz, 31 C, 72 W"
    assert found["torch on the gpu"]["found"] == "torch 2.13.0+cu130 (CUDA 13.0) sees NVIDIA H200"


def test_a_missing_profiler_costs_the_counters(machine, capsys):
    machine(tools=())
    ncu = rows(capsys)["ncu"]
    assert (ncu["state"], ncu["found"]) == ("note", "missing")
    assert "no counters" in ncu["cost"]


def test_counters_for_administrators_alone_are_told(machine, capsys, monkeypatch, tmp_path):
    machine()
    (tmp_path / "params").write_text("ResmanDebugLevel: 4294967295\nRmProfilingAdminOnly: 1\nTCEBypassMode: 0\n")
    monkeypatch.setattr(checkup_gpu, "_PARAMETERS", tmp_path / "params")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert "NVreg_RestrictProfilingToAdminUsers=0" in rows(capsys)["ncu"]["cost"]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert rows(capsys)["ncu"]["state"] == "ok"


def test_a_torch_for_cpus_is_named(machine, capsys):
    machine(torch='{"version": "2.13.0+cpu", "problem": "this torch is built for CPU only"}')
    torch = rows(capsys)["torch on the gpu"]
    assert torch["state"] == "note"
    assert "torch 2.13.0+cpu (CPU only): torch is built without GPU support" in torch["found"]
    assert "install a build of torch for CUDA" in torch["cost"]


def test_a_driver_that_is_too_old_for_torch_is_named(machine, capsys):
    said = "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver"
    machine(torch=json.dumps({"version": "2.13.0+cu130", "cuda": "13.0", "problem": said}))
    torch = rows(capsys)["torch on the gpu"]
    assert "older than the CUDA that torch is built for" in torch["found"]
    assert "update the driver" in torch["cost"]


def test_a_driver_that_is_too_old_for_nvcc_is_named(machine, capsys):
    machine(runs="12.8")
    nvcc = rows(capsys)["nvcc"]
    assert nvcc["state"] == "note"
    assert "supports CUDA up to 12.8" in nvcc["cost"]


def test_an_nvcc_that_does_not_know_the_device_is_named(machine, capsys):
    machine(product="NVIDIA L40S", capability="8.9")
    found = rows(capsys)
    assert "doesn't compile for sm_89" in found["nvcc"]["found"]
    assert "Triton's are not affected" in found["nvcc"]["cost"]
    assert found["gpu"]["state"] == "note"
    assert "filed under its own key" in found["gpu"]["cost"]


def test_a_missing_nvcc_is_told_with_or_without_a_gpu(machine, capsys, monkeypatch):
    def missing():
        raise ToolchainError("nvcc is nowhere", remedy="install the CUDA toolkit")

    monkeypatch.setattr(cuda, "toolkit", missing)
    nvcc = rows(capsys)["nvcc"]
    assert (nvcc["state"], nvcc["found"]) == ("note", "nvcc is nowhere")
    assert "install the CUDA toolkit" in nvcc["cost"]


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("1410, 2619, 92, 300, 0x40, 0x40, 0, None", "held back (hw_thermal_slowdown)"),
        ("345, 2619, 31, 71, 0x1, 0x1, 7, None", "watch whether the count grows"),
        ("345, 2619, 31, 71, 0x1, 0x1, 7, Reset", "needs: Reset"),
    ],
)
def test_a_device_that_is_not_well_is_noted(state, told, machine, capsys):
    machine(state=state)
    found = rows(capsys)["gpu state"]
    assert found["state"] == "note"
    assert told in found["cost"]


def test_a_machine_of_amd_is_asked_for_amd_s_tools(machine, capsys):
    machine(vendor="amd", tools=(), torch='{"version": "2.13.0+rocm7.1", "hip": "7.1", "devices": ["AMD MI300X"]}')
    found = rows(capsys)
    assert found["gpu"]["found"].startswith("amd-mi300x: ")
    assert found["amd-smi"]["state"] == "ok"
    assert (found["rocprofv3"]["found"], "ncu" in found) == ("missing", False)
    assert found["gpu state"]["found"] == "87 C"
    assert "(ROCm 7.1)" in found["torch on the gpu"]["found"]


def test_without_a_gpu_torch_is_not_even_imported(machine, capsys, tmp_path, monkeypatch):
    ran = tmp_path / "ran"
    (tmp_path / "python").write_text(f"#!/bin/sh\n: > {ran}\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    found = rows(capsys)
    assert found["gpu"]["found"] == "none"
    assert "kernelevolve triage" in found["gpu"]["cost"]
    assert "torch on the gpu" not in found
    assert not ran.exists()
