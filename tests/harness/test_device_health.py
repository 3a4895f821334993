"""The probe itself, on the CPU; and what is made of its answers."""

import sys

import pytest

from kernelevolve.errors import JudgeError
from kernelevolve.hardware import gpu_state, nvidia
from kernelevolve.harness import device_health, device_probe
from kernelevolve.harness.device_health import Healthy, Unhealthy, ensure, probe

(H200,) = nvidia.parse("NVIDIA H200, 143771, 570.124.06, 9.0")


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Let the probe's interpreter do something else."""

    def say(body):
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))

    return say


@pytest.fixture
def counted(monkeypatch):
    """Let the driver tell a state."""

    def tell(**state):
        monkeypatch.setattr(gpu_state, "sample", lambda hardware, device=None: gpu_state.Sample(**state))

    return tell


def test_a_device_that_computes_is_healthy():
    assert device_probe.check("cpu") == device_probe.HEALTHY
    assert probe(H200, torch_device="cpu") == Healthy()


def test_a_device_that_is_not_there_is_unhealthy():
    found = probe(H200, torch_device="cuda:77")
    assert isinstance(found, Unhealthy)
    assert found.reason


def test_a_device_that_hangs_is_unhealthy(answers):
    answers("exec sleep 60")
    assert probe(H200, seconds=0.2) == Unhealthy("it didn't answer within 0.2 seconds")


def test_a_device_that_computes_wrongly_is_unhealthy(answers):
    answers("printf '17 of 1048576 integers are computed wrongly'")
    assert probe(H200) == Unhealthy("17 of 1048576 integers are computed wrongly")


def test_a_probe_that_dies_gives_its_last_words(answers):
    answers("echo 'Traceback' >&2; echo 'RuntimeError: CUDA error: unknown error' >&2; exit 1")
    assert probe(H200) == Unhealthy("RuntimeError: CUDA error: unknown error")


def test_new_memory_errors_make_a_device_unhealthy(answers, counted):
    answers("printf healthy")
    counted(uncorrected_errors=3)
    assert probe(H200, errors_before=3) == Healthy()
    assert probe(H200) == Healthy()  # nobody counted before
    found = probe(H200, errors_before=1)
    assert isinstance(found, Unhealthy)
    assert "2 uncorrected memory errors" in found.reason


def test_a_driver_that_asks_for_a_reset_is_heard(answers, counted):
    answers("printf healthy")
    counted(recovery="Reset")
    assert probe(H200) == Unhealthy("the driver says that the device needs: Reset")


def test_errors_are_counted_where_the_device_counts_them(counted):
    counted(uncorrected_errors=5)
    assert device_health.uncorrected_errors(H200) == 5
    counted()
    assert device_health.uncorrected_errors(H200) is None


def test_nothing_more_is_judged_on_an_unhealthy_device():
    ensure(Healthy(), H200)
    with pytest.raises(JudgeError, match=r"nvidia-h200 is not fit.*it burns.*reset"):
        ensure(Unhealthy("it burns"), H200)
