import stat

import pytest

from kernelevolve.hardware import nvidia

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


@pytest.mark.gpu
def test_a_gpu_of_this_machine_is_found():
    assert nvidia.detect()[0].memory_bytes > 1 << 30
