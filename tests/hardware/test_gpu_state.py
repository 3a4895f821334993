"""Answers in the shapes that nvidia-smi (drivers 450 to 580), amd-smi (ROCm 6.0 to 7.1) and rocm-smi give."""

import json

import pytest

from kernelevolve.hardware import amd, cpu, gpu_state, nvidia, nvidia_smi
from kernelevolve.hardware.gpu_state import Sample, Watch, of_amd_smi, of_nvidia, of_rocm_smi, summarise

(H200,) = nvidia.parse("NVIDIA H200, 143771, 570.124.06, 9.0")
(MI300X,) = amd.parse(
    '[{"asic": {"market_name": "AMD Instinct MI300X", "num_compute_units": 304, "target_graphics_version": "gfx942"}}]'
)
NEW = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_event_reasons.active",
       "ecc.errors.uncorrected.volatile.total", "gpu_recovery_action")  # fmt: skip
OLD = ("clocks.sm", "clocks.mem", "temperature.gpu", "power.draw", "clocks_throttle_reasons.active",
       "ecc.errors.uncorrected.volatile.total")  # fmt: skip


def nvidia_sample(line, fields=NEW):
    (row,) = nvidia_smi.read(line, fields)
    return of_nvidia(row)


def test_a_busy_device_at_its_power_limit():
    found = nvidia_sample("1665, 3201, 66, 698.42, 0x0000000000000004, 0, None")
    assert found == Sample(1665, 3201, 66, 698.42, ("sw_power_cap",), idle=False, uncorrected_errors=0)


def test_an_older_driver_says_the_same_under_another_name():
    found = nvidia_sample("1380, 877, 84, 249.95, 0x0000000000000060, 0", OLD)
    assert found.throttled_by == ("sw_thermal_slowdown", "hw_thermal_slowdown")


def test_an_idle_device_is_not_slowed_down():
    found = nvidia_sample("345, 2619, 31, 71.53, 0x0000000000000001, 0, None")
    assert found.idle
    assert found.throttled_by == ()


def test_what_a_driver_does_not_tell_is_absent():
    found = nvidia_sample("2418, [N/A], 53, 34.18, 0x0000000000000000, [N/A], [N/A]")  # unified memory, no ECC
    assert found == Sample(2418, None, 53, 34.18)
    assert nvidia_sample("[Unknown Error], [N/A], [N/A], [N/A], [N/A], [N/A], Reset").recovery == "Reset"


METRIC = {
    "gpu": 0,
    "usage": {"gfx_activity": {"value": 100, "unit": "%"}},
    "power": {"socket_power": {"value": 749, "unit": "W"}, "gfx_voltage": "N/A"},
    "clock": {
        "gfx_0": {"clk": {"value": 1402, "unit": "MHz"}, "max_clk": {"value": 2100, "unit": "MHz"}},
        "gfx_1": {"clk": {"value": 1397, "unit": "MHz"}},
        "gfx_2": {"clk": "N/A"},
        "mem_0": {"clk": {"value": 1300, "unit": "MHz"}},
    },
    "temperature": {"edge": "N/A", "hotspot": {"value": 87, "unit": "C"}, "mem": {"value": 71, "unit": "C"}},
    "ecc": {"total_correctable_count": 0, "total_uncorrectable_count": 2},
    "throttle": {
        "accumulation_counter": 3131,
        "prochot_violation_status": "NOT ACTIVE",
        "ppt_violation_status": "ACTIVE",
        "socket_thermal_violation_status": {"xcp_0": ["NOT ACTIVE", "ACTIVE"]},
        "low_utilization_violation_status": "ACTIVE",
    },
}


def test_amd_smi_tells_the_same_things():
    found = of_amd_smi(METRIC)
    assert found == Sample(1402, 1300, 87, 749, ("ppt", "socket_thermal"), idle=False, uncorrected_errors=2)


def test_an_older_amd_smi_tells_less():
    found = of_amd_smi({"gpu": 0, "temperature": {"edge": {"value": 41, "unit": "C"}, "hotspot": "N/A"}})
    assert found == Sample(temperature_c=41)


def test_rocm_smi_tells_clocks_temperature_and_power():
    card = {
        "Temperature (Sensor junction) (C)": "45.0", "Temperature (Sensor memory) (C)": "38.0",
        "Max Graphics Package Power (W)": "750.0", "Current Socket Graphics Package Power (W)": "159.0",
        "sclk clock speed:": "(132Mhz)", "sclk clock level:": "1", "mclk clock speed:": "(900Mhz)",
    }  # fmt: skip
    assert of_rocm_smi({"card0": card}) == Sample(132, 900, 45, 159)
    assert of_rocm_smi({"card0": {**card, "Temperature (Sensor junction) (C)": "N/A"}}).temperature_c is None


def watched(samples, hardware=H200):
    left = list(samples)
    with Watch(hardware, interval_s=0.001, take=lambda *_: left.pop(0) if left else None) as watch:
        while left:
            pass
    return watch


def test_a_watch_tells_the_extremes_of_the_time_when_the_device_was_busy():
    watch = watched([
        Sample(345, 2619, 31, 70, idle=True, uncorrected_errors=1),
        Sample(1980, 3201, 60, 500, uncorrected_errors=1),
        Sample(1665, 3201, 66, 698, ("sw_power_cap",), uncorrected_errors=1),
        Sample(345, 2619, 40, 90, idle=True, uncorrected_errors=3),
    ])  # fmt: skip
    state = watch.state
    assert state is not None
    assert (state.sm_clock_mhz, state.memory_clock_mhz) == ((1665, 1980), (3201, 3201))
    assert (state.temperature_c, state.power_w, state.throttled_by) == (66, 698, ("sw_power_cap",))
    assert "NVIDIA H200 ran at 1665 to 1980 MHz, 66 C, 698 W, slowed down by sw_power_cap" in state.message
    assert watch.new_errors == 2


def test_a_watch_without_a_tool_knows_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    for hardware in (H200, MI300X, cpu.detect()):
        with Watch(hardware) as watch:
            pass
        assert watch.state is None
        assert watch.new_errors is None


@pytest.mark.parametrize(
    ("reasons", "advice"),
    [
        (("hw_thermal_slowdown", "sw_power_cap"), "cool it"),
        (("hw_power_brake_slowdown",), "power supply"),
        (("sw_power_cap",), "power limit"),
        (("ppt",), "power limit"),
        (("sync_boost",), "held back"),
        ((), "nothing to do"),
    ],
)
def test_the_advice_is_about_the_worst_reason(reasons, advice):
    state = summarise("x", (Sample(1000, None, 50, None, reasons),))
    assert advice in state.advice
    assert state.memory_clock_mhz is None


def test_a_device_is_asked_through_its_vendor_s_tool(monkeypatch, tmp_path):
    def script(name, text):
        (tmp_path / name).write_text(f"#!/bin/sh\n/bin/cat <<'EOF'\n{text}\nEOF\n")
        (tmp_path / name).chmod(0o755)

    script("nvidia-smi", "1665, 3201, 66, 698.42, 0x4, 0x4, 0, None")
    script("amd-smi", "WARNING: something\n" + json.dumps({"gpu_data": [METRIC]}))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_state.sample(H200).power_w == 698.42
    assert gpu_state.sample(MI300X).power_w == 749
