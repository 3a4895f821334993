"""Reports of profilers become findings. `recorded/README.md` says what the reports are."""

import itertools
import shutil
from pathlib import Path

import pytest

from kernelevolve.harness.profilers import Ncu, Proton, Refused, Rocprof
from kernelevolve.harness.profilers.base import bound_of
from kernelevolve.harness.profilers.ncu import wanted

RECORDED = Path(__file__).parent / "recorded"


def recorded(name):
    return (RECORDED / name).read_text()


def counters(profiler, text, workload=None):
    found = profiler.parse(text, workload)
    assert not isinstance(found, Refused)
    return found


def test_a_raw_page_of_nsight_compute_is_one_finding_a_kernel_the_slowest_first():
    gemm, select = counters(Ncu(), recorded("ncu_raw.csv"), "w")
    assert (gemm.kernel, gemm.launches, gemm.workload) == ("gemm", 3, "w")
    assert (select.kernel, select.launches) == ("radix_select", 1)
    assert gemm.duration_us == 101.0  # the median: one launch was disturbed
    assert select.duration_us == pytest.approx(21.408)


def test_its_metrics_have_our_names_and_units():
    gemm, select = counters(Ncu(), recorded("ncu_raw.csv"))
    assert gemm.metrics["tensor_core_pct"] == 78.2
    assert gemm.metrics["sm_pct"] == pytest.approx((80.11 + 81.11) / 2)  # a NaN is no number
    assert (gemm.metrics["registers"], gemm.metrics["shared_bytes"]) == (168, 196608)
    assert select.metrics["local_bytes"] == 4096 + 2048
    assert select.metrics["bank_conflicts"] == 65536


def test_the_bound_is_named_and_the_advice_is_about_it_and_the_first_stall_reason():
    gemm, select = counters(Ncu(), recorded("ncu_raw.csv"))
    assert gemm.bound == "compute"
    assert "tensor cores are busy" in gemm.advice
    assert next(iter(gemm.stalls)) == "gmma"
    assert sum(gemm.stalls.values()) == pytest.approx(1)
    assert "compute bound" in gemm.message
    assert select.bound == "latency"
    assert (next(iter(select.stalls)), select.stalls["long_scoreboard"]) == ("long_scoreboard", pytest.approx(0.63))
    for told in ("more work in flight", "occupancy is low", "global or local memory", "spill", "bank conflicts"):
        assert told in select.advice


def test_the_older_form_with_a_row_a_metric_and_its_units_is_read_too():
    (copy,) = counters(Ncu(), recorded("ncu_long.csv"))
    assert copy.kernel == "void copy<float>(float*, const float*, long)"
    assert copy.duration_us == 1234.5
    assert copy.metrics["shared_bytes"] == pytest.approx(1020)
    assert copy.bound == "memory"
    assert "memory bandwidth is used up" in copy.advice
    assert copy.stalls == {"long_scoreboard": 0.9, "wait": 0.1}


def test_missing_permission_is_said_with_what_to_enable():
    found = Ncu().parse(recorded("ncu_refused.log"))
    assert isinstance(found, Refused)
    assert "ERR_NVGPUCTRPERM" in found.message
    assert "NVreg_RestrictProfilingToAdminUsers=0" in found.advice


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("==ERROR== Profiling failed because a driver resource was unavailable. Ensure that no other tool (like DCGM) "
         "is concurrently collecting profiling data.", "another tool"),
        ("==WARNING== No kernels were profiled.", "no kernel was launched"),
        ("==ERROR== The application returned an error code (11).", "failed under the profiler"),
        ("==ERROR== Something else.", "Something else"),
        ("", "it said nothing"),
        ('"ID","Process ID"\n', "it said nothing"),
    ],
)  # fmt: skip
def test_a_report_without_kernels_says_why(log, said):
    found = Ncu().parse(log)
    assert isinstance(found, Refused)
    assert said in found.message


def test_nsight_compute_leaves_clocks_alone_and_keeps_out_of_the_program_s_output():
    command = Ncu(launches=5, kernel="gemm").wrap(["python3", "run.py", "7"], Path("/x/report.log"))
    assert command[-3:] == ["python3", "run.py", "7"]
    options = dict(itertools.pairwise(command))
    assert options["--clock-control"] == "none"
    assert options["--log-file"] == "/x/report.log"
    assert (options["--launch-count"], options["--kernel-name"]) == ("5", "regex:gemm")
    assert set(options["--metrics"].split(",")) == set(wanted())


def test_a_profile_of_proton_tells_the_time_of_each_kernel():
    select, histogram = counters(Proton(), recorded("proton.hatchet"), "w")
    assert (select.kernel, select.launches, select.duration_us) == ("select", 20, pytest.approx(4.064))
    assert (histogram.kernel, histogram.launches) == ("histogram", 25)
    assert histogram.duration_us == pytest.approx((33.28 + 8.32) / 25)
    assert select.bound is None
    assert select.source == "proton"


@pytest.mark.parametrize("text", ["", "{", "[]", '[{"frame": {"name": "ROOT"}, "metrics": {"count": 0}}]'])
def test_a_profile_without_kernels_is_refused(text):
    assert isinstance(Proton().parse(text), Refused)


def test_proton_is_found_and_started_with_a_name_that_its_report_is_read_from(tmp_path):
    assert Proton().available()  # triton carries it
    command = Proton().wrap(["python3", "run.py", "7"], tmp_path / "one.hatchet")
    assert command == ["python3", "-m", "triton.profiler.proton", "--name", str(tmp_path / "one"), "run.py", "7"]
    (tmp_path / "one.hatchet").write_text(recorded("proton.hatchet"))
    assert len(counters(Proton(), Proton().read(tmp_path / "one.hatchet"))) == 2
    assert Proton().read(tmp_path / "other") == ""


def test_times_of_rocprof_come_from_the_trace_and_counters_from_the_collection():
    text = recorded("rocprof_counter_collection.csv") + recorded("rocprof_kernel_trace.csv")
    gemm, select = counters(Rocprof(), text, "w")
    assert (gemm.kernel, gemm.launches) == ("gemm(float*, float const*, int)", 2)
    assert gemm.duration_us == 101.0  # not the 400 that it takes while counted
    assert gemm.bound == "compute"
    assert gemm.metrics["read_bytes"] == 2048 * 1024
    assert gemm.metrics["occupancy_pct"] == pytest.approx(24.333218)
    assert select.bound == "latency"
    assert select.metrics["local_bytes"] == 96
    assert "bank conflicts" in select.advice


def test_a_trace_alone_tells_times_and_resources():
    gemm, select = counters(Rocprof(), recorded("rocprof_kernel_trace.csv"))
    assert (gemm.duration_us, gemm.bound, gemm.metrics["registers"]) == (101.0, None, 128)
    assert select.duration_us == 7.0
    assert "spill" in select.advice


def test_counters_alone_bring_their_own_times():
    gemm, _ = counters(Rocprof(), recorded("rocprof_counter_collection.csv"))
    assert (gemm.launches, gemm.duration_us) == (1, 400.0)


def test_rocprof_runs_once_for_each_group_and_its_first_trace_counts(tmp_path):
    command = Rocprof().wrap(["./bench"], tmp_path / "out")
    assert command[-2:] == ["--", "./bench"]
    assert Path(command[command.index("--input") + 1]).read_text().count("pmc: ") == 4
    for number in (1, 2):
        folder = tmp_path / "out" / f"pass_{number}"
        folder.mkdir()
        for kind in ("kernel_trace", "counter_collection"):
            shutil.copy(RECORDED / f"rocprof_{kind}.csv", folder / f"4711_{kind}.csv")
    gemm, _ = counters(Rocprof(), Rocprof().read(tmp_path / "out"))
    assert gemm.launches == 2
    assert isinstance(Rocprof().parse(Rocprof().read(tmp_path / "nothing")), Refused)


@pytest.mark.parametrize(
    ("metrics", "bound"),
    [
        ({"dram_pct": 90.0, "sm_pct": 70.0}, "memory"),
        ({"dram_pct": 20.0, "l2_pct": 75.0, "sm_pct": 70.0}, "memory"),
        ({"dram_pct": 61.0, "sm_pct": 30.0, "tensor_core_pct": 85.0}, "compute"),
        ({"dram_pct": 40.0, "sm_pct": 50.0}, "latency"),
        ({"dram_pct": 90.0}, None),
        ({}, None),
    ],
)
def test_the_busiest_unit_bounds_a_kernel(metrics, bound):
    assert bound_of(metrics) == bound


def test_a_tool_is_started_by_its_real_path_and_brings_what_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "links"))
    toolkit = tmp_path / "cuda-13.0"
    for folder in (tmp_path / "links", toolkit / "bin", toolkit / "nsight-compute-2025.3"):
        folder.mkdir(parents=True)
    for profiler, tool in ((Ncu(), "ncu"), (Rocprof(), "rocprofv3")):
        assert not profiler.available()
        assert profiler.folders() == ()
        program = toolkit / "bin" / tool
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        (tmp_path / "links" / tool).symlink_to(program)
        assert profiler.available()
        assert profiler.wrap(["./bench"], tmp_path / profiler.name)[0] == str(program)
    assert {toolkit / "bin", toolkit / "nsight-compute-2025.3"} <= set(Ncu().folders())
    assert Rocprof().folders() == (toolkit,)
