import stat

import pytest

from kernelevolve.hardware import nvidia
from kernelevolve.hardware.present import products

RECORDED = """\
NVIDIA H200, 143771, 570.124.06, 9.0
NVIDIA H200, 143771, 570.124.06, 9.0
NVIDIA H100 80GB HBM3, 81559, 570.124.06, 9.0
Tesla T4, 15360, 535.183.01, 7.5
"""


def test_recorded_output_becomes_one_record_for_each_product():
    h200, h100, t4 = nvidia.parse(RECORDED)
    assert (h200.key, h200.architecture, h200.cores, h200.driver) == (
        "nvidia-h200",
        "sm_90",
        132,
        "570.124.06",
    )
    assert h200.memory_bytes == 143771 << 20
    assert h200.device == "gpu"
    assert (h100.key, "nvidia-h100" in h100.aliases) == ("nvidia-h100-80gb-hbm3", True)
    assert (t4.key, t4.architecture, t4.cores) == ("nvidia-tesla-t4", "sm_75", 40)


def test_product_variants_are_devices_apart():
    lines = (f"NVIDIA H100 {v}, 81559, 570.0, 9.0" for v in ("80GB HBM3", "PCIe", "NVL"))
    found = nvidia.parse("\n".join(lines))
    names = [{h.key, *h.aliases} for h in found]
    assert len(found) == 3
    assert not (names[0] & names[1] or names[0] & names[2] or names[1] & names[2])


def test_a_product_of_unknown_size_is_reported_as_such(caplog):
    (found,) = nvidia.parse("NVIDIA Z9000, 1024, 600.1, 13.0")
    assert found.cores == 0
    assert "NVIDIA Z9000" in caplog.text


def test_a_driver_that_does_not_answer_leaves_the_gpus_out(tmp_path, monkeypatch, caplog):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'\nexit 9\n")
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.detect() == ()
    assert "NVIDIA-SMI has failed" in caplog.text


def test_without_the_program_there_is_no_gpu(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia.detect() == ()


DIVIDED = """\
GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-0a)
  MIG 3g.40gb     Device  0: (UUID: MIG-1)
  MIG 1g.10gb     Device  1: (UUID: MIG-2)
  MIG 1g.10gb     Device  2: (UUID: MIG-3)
GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-0b)
"""


def rows(*names):
    return [
        {"uuid": uuid, "name": name, "memory.total": "81559", "driver_version": "570.1", "compute_cap": "9.0"}
        for uuid, name in names
    ]


def test_a_divided_gpu_is_its_parts_with_keys_of_their_own():
    whole = "NVIDIA H100 80GB HBM3"
    found = products(nvidia.describe(rows(("GPU-0a", whole), ("GPU-0b", whole)), DIVIDED))
    assert [(h.key, h.cores, h.memory_bytes >> 30) for h in found] == [
        ("nvidia-h100-80gb-hbm3-mig-3g-40gb", 60, 40),
        ("nvidia-h100-80gb-hbm3-mig-1g-10gb", 16, 10),
        ("nvidia-h100-80gb-hbm3", 132, 79),
    ]
    assert not any(h.aliases for h in found[:2])


def test_an_old_driver_that_tells_no_capability_is_helped_by_the_product(caplog):
    row = {"name": "Tesla T4", "memory.total": "15109", "driver_version": "450.80.02"}
    (t4,) = products(nvidia.describe([row]))
    assert (t4.key, t4.architecture) == ("nvidia-tesla-t4", "sm_75")
    assert nvidia.describe([{"name": "NVIDIA Z9000", "memory.total": "1024"}]) == ()
    assert "NVIDIA Z9000: update it" in caplog.text


def test_a_gpu_that_is_lost_is_left_out(caplog):
    assert nvidia.parse("[Unknown Error], [Unknown Error], 570.1, [Unknown Error]") == ()
    assert "reset" in caplog.text


def test_a_gpu_without_memory_of_its_own_has_that_of_the_machine():
    (found,) = nvidia.parse("NVIDIA GB10, [N/A], 580.95.05, 12.1")
    assert found.architecture == "sm_121"
    assert found.memory_bytes > 1 << 28


def test_fields_that_a_driver_does_not_know_are_left_out(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in\n'
        "  *compute_cap*) echo 'Field \"compute_cap\" is not a valid field to query.'; echo; exit 2;;\n"
        "  -L) echo 'GPU 0: Tesla V100-SXM2-16GB (UUID: GPU-7)';;\n"
        "  *) echo 'GPU-7, Tesla V100-SXM2-16GB, 16160, 450.80.02';;\n"
        "esac\n"
    )
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", str(tmp_path))
    (found,) = nvidia.detect()
    assert (found.key, found.architecture, found.cores) == ("nvidia-tesla-v100-sxm2-16gb", "sm_70", 80)


@pytest.mark.gpu
def test_a_gpu_of_this_machine_is_found():
    assert nvidia.detect()[0].memory_bytes > 1 << 30
