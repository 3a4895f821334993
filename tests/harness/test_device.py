"""What surrounds a candidate on a device: a baseline that it slows down voids its measurement."""

import pytest

from kernelevolve.hardware.devices import known
from kernelevolve.harness.access import INTERPRETED
from kernelevolve.harness.device import Device
from kernelevolve.harness.runner import RunnerFailed
from kernelevolve.testing.records import a_measurement

DEVICE = Device(known("nvidia-h200").hardware, INTERPRETED)


def test_a_baseline_that_is_slower_beside_a_candidate_voids_the_measurement() -> None:
    with pytest.raises(RunnerFailed) as caught:
        DEVICE.undisturbed([a_measurement(baseline_us=15.0)], {("n1024", "eager"): 10.0})
    (finding,) = caught.value.diagnostics
    assert finding.kind == "unsettled"
    assert "15.0 us" in finding.message
    assert "10.0 us" in finding.message


def test_a_baseline_that_is_about_as_fast_as_alone_voids_nothing() -> None:
    DEVICE.undisturbed([a_measurement(baseline_us=11.0)], {("n1024", "eager"): 10.0})
    DEVICE.undisturbed([a_measurement(baseline_us=11.0)], {})
