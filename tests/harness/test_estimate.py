"""Estimates of a call's time: what they can't get wrong, and that they are never taken for measurements."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernelevolve import targets
from kernelevolve.hardware.devices import DEVICES, known
from kernelevolve.harness.estimate import HIGH, LOW, UNKNOWN, estimate, estimates, geometric_mean
from kernelevolve.schema import (
    Bandwidth,
    Ceilings,
    CompiledKernel,
    CostModel,
    Estimate,
    Instructions,
    LimitExceeded,
    NoEstimate,
    Resources,
    Target,
    TensorUse,
    Triage,
    Uncaptured,
)
from kernelevolve.testing.records import a_target, a_workload

H200 = known("nvidia-h200")
TARGETS = Path(__file__).parents[2] / "targets"
BIG = a_workload("big", n=1 << 26, device="gpu")
TARGET = a_target(workloads=(BIG,))
BYTES = 4 << 26


def counts(**changes: Any) -> Instructions:
    fields = {"total": 60, "tensor_core": 0, "vector_loads": 1, "async_copies": 0, "local_memory": 0,
              "load_store": 2, "global_bytes": 32}  # fmt: skip
    return Instructions(**{**fields, **changes})


MATMUL = counts(total=400, tensor_core=8, warpgroup=8, tensor_operations=8 * 65536, async_copies=12, global_bytes=192)
LOOP = counts(total=120, tensor_core=8, warpgroup=8, tensor_operations=8 * 65536, async_copies=4, global_bytes=64)


def a_kernel(**changes: Any) -> CompiledKernel:
    """A copy of 256 MiB in 65536 blocks of 256 threads."""
    needs = {"registers": 32, "spill_bytes": 0, "shared_bytes": 0, "num_warps": 8, "num_stages": 1,
             "instructions": counts()}  # fmt: skip
    needs |= {name: changes.pop(name) for name in tuple(changes) if name in Resources.model_fields}
    tensors = (TensorUse(storage=0, bytes=BYTES), TensorUse(storage=1, bytes=BYTES))
    fields: dict[str, Any] = {
        "workload": "big", "launch": 0, "kernel": "k", "grid": (65536, 1, 1), "configuration": {},
        "resources": Resources(**needs), "blocks_per_multiprocessor": 8, "occupancy": 1.0, "waves": 62.0,
        "tensors": tensors,
    }  # fmt: skip
    return CompiledKernel(**{**fields, **changes})


def estimated(*kernels: CompiledKernel, target: Target = TARGET, device: str = "nvidia-h200", **more: Any) -> Estimate:
    found = estimate(target.workloads[0], kernels, target, known(device), **more)
    assert isinstance(found, Estimate), found
    return found


def matmul_target(dtype: str = "float16") -> Target:
    """Operations as of a product of 8192 cubed."""
    return a_target(workloads=(BIG,), cost=CostModel(operations="2 * 8192 ** 3", precision=dtype))


# --- what it says ---


def test_a_good_copy_is_estimated_at_nearly_the_rate_of_the_memory() -> None:
    found = estimated(a_kernel())
    assert found.bound == "memory"
    assert found.moved_bytes == 2 * BYTES
    assert 2 * BYTES / 4.8e6 < found.estimated_us < 1.5 * 2 * BYTES / 4.8e6
    assert found.low_us < found.estimated_us < found.high_us
    assert found.high_us == pytest.approx(HIGH * found.estimated_us)
    assert found.low_us >= found.estimated_us / LOW


def test_a_matrix_product_with_tensor_cores_is_bound_by_them() -> None:
    kernel = a_kernel(instructions=MATMUL, loop=LOOP, shared_bytes=96 << 10, num_stages=4, registers=168,
                      grid=(4096, 1, 1), blocks_per_multiprocessor=1)  # fmt: skip
    found = estimated(kernel, target=matmul_target())
    assert found.bound == "compute"
    tflops = 2 * 8192**3 / found.estimated_us / 1e6
    assert 300 < tflops < 989


@pytest.mark.parametrize("gpu", DEVICES, ids=lambda gpu: gpu.key)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "float8_e4m3fn", "int8"])
def test_every_known_device_can_be_estimated_in_every_precision(gpu, dtype) -> None:
    for instructions in (counts(), MATMUL):
        found = estimated(a_kernel(instructions=instructions), target=matmul_target(dtype), device=gpu.key)
        assert 0 < found.low_us <= found.estimated_us <= found.high_us < math.inf


def test_a_tiny_call_is_bound_by_its_launches() -> None:
    small = a_target(workloads=(a_workload("big", n=256, device="gpu"),))
    tensors = (TensorUse(storage=0, bytes=1024), TensorUse(storage=1, bytes=1024))
    once = a_kernel(grid=(1, 1, 1), tensors=tensors)
    again = once.model_copy(update={"launch": 1})
    assert estimated(once, target=small).bound == "latency"
    assert estimated(once, again, target=small).estimated_us > 1.5 * estimated(once, target=small).estimated_us


def test_a_tensor_that_an_earlier_launch_left_in_the_cache_is_not_fetched_again() -> None:
    small = a_target(workloads=(a_workload("big", n=1 << 20, device="gpu"),))
    tensors = (TensorUse(storage=0, bytes=4 << 20), TensorUse(storage=1, bytes=4 << 20))
    launches = [a_kernel(grid=(1024, 1, 1), tensors=tensors, launch=number) for number in range(2)]
    assert estimated(*launches, target=small).moved_bytes == 8 << 20
    assert estimated(*(a_kernel(launch=n) for n in range(2))).moved_bytes == 4 * BYTES


def test_small_tiles_pay_for_reading_a_matrix_many_times() -> None:
    tiles = [a_kernel(instructions=MATMUL, loop=LOOP.model_copy(update={"global_bytes": size})) for size in (32, 512)]
    large, small = (estimated(kernel, target=matmul_target()) for kernel in tiles)
    assert small.parts.cache_us > 2 * large.parts.cache_us
    assert small.estimated_us > large.estimated_us


def test_a_tuner_is_as_good_as_its_best_configuration_that_fits() -> None:
    limit = LimitExceeded(message="too much", advice="less", resource="shared_memory", limit=1.0)
    slow = a_kernel(configuration={"B": "1"}, instructions=counts(total=4000))
    excess = a_kernel(configuration={"B": "2"}, instructions=counts(total=1), diagnostics=(limit,))
    fast = a_kernel(configuration={"B": "4"})
    assert estimated(slow, excess, fast) == estimated(fast)


def test_spilled_registers_cost_time() -> None:
    assert estimated(a_kernel(spill_bytes=64)).estimated_us > estimated(a_kernel()).estimated_us


def test_measured_ceilings_are_preferred_to_the_datasheet() -> None:
    ceilings = Ceilings(bandwidths=(Bandwidth(footprint_bytes=1 << 30, gbps=2400.0),), peak_gflops={"float16": 3e5},
                        threads=1, measured_at="2026-01-02T03:04:05+00:00")  # fmt: skip
    assert estimated(a_kernel(), ceilings=ceilings).parts.memory_us == pytest.approx(2 * BYTES / 2.4e6)
    kernel = a_kernel(instructions=MATMUL, loop=LOOP)
    assert estimated(kernel, target=matmul_target(), ceilings=ceilings).parts.compute_us >= 2 * 8192**3 / 3e8


def test_what_is_not_known_makes_the_interval_wider() -> None:
    known_, unknown = estimated(a_kernel()), estimated(a_kernel(tensors=()))
    assert unknown.high_us / unknown.estimated_us == pytest.approx(UNKNOWN * known_.high_us / known_.estimated_us)
    assert estimated(a_kernel(instructions=counts(tensor_core=4))).high_us > estimated(a_kernel()).high_us


def test_the_same_facts_give_the_same_estimate() -> None:
    kernels = [a_kernel(launch=n, configuration={"B": str(b)}) for n in range(2) for b in range(2)]
    assert estimated(*kernels) == estimated(*kernels)


# --- the seeds beside what others have published ---

RECORDED = {
    (case["target"], case["seed"], case["workload"]): [CompiledKernel.model_validate(k) for k in case["kernels"]]
    for case in json.loads((Path(__file__).parent / "recorded_launches.json").read_text())
}
"""What the seeds launch at their defaults, compiled for an H100 by Triton 3.9."""


@pytest.mark.parametrize(
    ("target", "seed", "workload", "best_us", "usual_us"),
    [
        ("topk", "sorted_runs", "gpu-f32-64x131072-k1024", 30, 175),
        ("topk", "radix_select", "gpu-f32-64x131072-k1024", 30, 175),
        ("topk", "sorted_runs", "gpu-f32-256x131072-k4096", 162, 509),
        ("request_broadcast", "fused_runs", "gpu-f16-1024x15", 482, 1944),
        ("request_broadcast", "two_phase", "gpu-f16-1024x15", 482, 1944),
        # 2 * 8192 * 7168 * 4096 operations at 622 TFLOP/s, a very good product of one matrix, and at 215
        ("grouped_gemm", "persistent_tiles", "gpu-bf16-4x8192-k7168-n4096", 773, 2237),
    ],
)
def test_the_interval_of_a_seed_meets_the_published_times(target, seed, workload, best_us, usual_us) -> None:
    operation = targets.load(target, TARGETS)
    found = estimate(operation.workload(workload), RECORDED[target, seed, workload], operation, known("nvidia-h100"))
    assert isinstance(found, Estimate)
    assert best_us / 2 < found.estimated_us < 2 * usual_us
    assert found.low_us < usual_us
    assert found.high_us > best_us


# --- where it says nothing ---


def test_what_does_not_fit_the_device_has_no_estimate() -> None:
    limit = LimitExceeded(message="too much", advice="less", resource="shared_memory", limit=1.0)
    excess = a_kernel(launch=1, diagnostics=(limit,))
    assert isinstance(estimate(BIG, [a_kernel(), excess], TARGET, H200), NoEstimate)
    nowhere = a_kernel(blocks_per_multiprocessor=0, waves=None)
    assert isinstance(estimate(BIG, [nowhere], TARGET, H200), NoEstimate)


def a_triage(**changes: Any) -> Triage:
    fields: dict[str, Any] = {
        "candidate": "c", "target": TARGET.digest, "hardware_key": H200.key, "architecture": "sm_90",
        "versions": {}, "sandbox": (), "kernels": (a_kernel(),), "seconds": {},
    }  # fmt: skip
    return Triage(**{**fields, **changes})


def test_a_launcher_that_can_not_be_captured_has_no_estimate() -> None:
    reads = Uncaptured(message="reads values", advice="don't", workload="big")
    for triage in (a_triage(kernels=()), a_triage(diagnostics=(reads,))):
        (found,) = estimates(triage, TARGET, H200)
        assert isinstance(found, NoEstimate)
        assert geometric_mean([found]) is None


def test_a_candidate_has_one_number_only_if_every_workload_has() -> None:
    two = a_target(workloads=(BIG, a_workload("other", n=1 << 20, device="gpu")))
    found = estimates(a_triage(), two, H200)
    assert [type(e) for e in found] == [Estimate, NoEstimate]
    assert geometric_mean(found) is None
    (alone,) = estimates(a_triage(), TARGET, H200)
    assert geometric_mean([alone, alone]) == pytest.approx(alone.estimated_us)


# --- what never makes a call faster ---

instruction_counts = st.sampled_from([counts(), counts(total=3000, load_store=900), counts(global_bytes=4), MATMUL,
                                      counts(tensor_core=4), counts(global_bytes=0, load_store=0)])  # fmt: skip
kernels = st.builds(
    a_kernel,
    grid=st.tuples(st.integers(1, 1 << 20), st.integers(1, 64), st.just(1)),
    instructions=instruction_counts, loop=st.sampled_from([None, LOOP]), num_warps=st.sampled_from([1, 2, 4, 8, 16]),
    num_stages=st.integers(1, 5), shared_bytes=st.integers(0, 200 << 10), spill_bytes=st.integers(0, 4096),
    blocks_per_multiprocessor=st.integers(1, 32),
    tensors=st.lists(
        st.builds(TensorUse, storage=st.integers(0, 3), bytes=st.integers(0, 1 << 34)),
        min_size=1, max_size=4, unique_by=lambda t: t.storage,
    ).map(tuple),
)  # fmt: skip
calls = st.lists(kernels, min_size=1, max_size=3).map(
    lambda found: [k.model_copy(update={"launch": number}) for number, k in enumerate(found)]
)
devices = st.sampled_from([gpu.key for gpu in DEVICES])
few = settings(max_examples=40, deadline=None)
on_either_target = st.sampled_from([TARGET, matmul_target(), matmul_target("float32")])


@few
@given(calls, devices, on_either_target, st.data())
def test_more_bytes_are_never_faster(call, device, target, data) -> None:
    number = data.draw(st.integers(0, len(call) - 1))
    first, *rest = call[number].tensors
    more = first.model_copy(update={"bytes": first.bytes + data.draw(st.integers(0, 1 << 34))})
    larger = [*call]
    larger[number] = call[number].model_copy(update={"tensors": (more, *rest)})
    before, after = (estimated(*c, target=target, device=device) for c in (call, larger))
    assert after.estimated_us >= before.estimated_us * (1 - 1e-9)


@few
@given(calls, devices, on_either_target, st.data())
def test_lower_occupancy_is_never_faster(call, device, target, data) -> None:
    number = data.draw(st.integers(0, len(call) - 1))
    fewer = data.draw(st.integers(1, call[number].blocks_per_multiprocessor))
    lower = [*call]
    lower[number] = call[number].model_copy(update={"blocks_per_multiprocessor": fewer})
    before, after = (estimated(*c, target=target, device=device) for c in (call, lower))
    assert after.estimated_us >= before.estimated_us * (1 - 1e-9)


@few
@given(calls, devices, on_either_target, st.data())
def test_spills_are_never_faster(call, device, target, data) -> None:
    number = data.draw(st.integers(0, len(call) - 1))
    needs = call[number].resources
    spilled = needs.model_copy(update={"spill_bytes": needs.spill_bytes + data.draw(st.integers(1, 4096))})
    worse = [*call]
    worse[number] = call[number].model_copy(update={"resources": spilled})
    before, after = (estimated(*c, target=target, device=device) for c in (call, worse))
    assert after.estimated_us >= before.estimated_us * (1 - 1e-9)


@few
@given(calls, devices, on_either_target)
def test_the_interval_holds_the_estimate_and_stays_above_the_roofline(call, device, target) -> None:
    found, gpu = estimated(*call, target=target, device=device), known(device)
    assert found.low_us <= found.estimated_us <= found.high_us
    assert found.low_us >= target.compulsory_bytes(BIG) / gpu.memory_gbps / 1e3 * (1 - 1e-9)
    assert all(part >= 0 for part in found.parts.model_dump().values())
