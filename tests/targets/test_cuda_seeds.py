"""The CUDA kernels that targets ship: they compile for every generation, and compute right in the emulator."""

import itertools
import random
from functools import cache
from pathlib import Path

import pytest

from kernelevolve import targets
from kernelevolve.hardware.devices import known
from kernelevolve.harness.triage import triage
from kernelevolve.languages.cuda import Cuda
from kernelevolve.schema import Candidate, Lineage, Seed, Target, Value, Workload
from kernelevolve.testing.emulator.check import emulated

TARGETS = Path(__file__).parent.parent.parent / "targets"
CUDA = Cuda()
SEEDS = [
    (name, seed) for name in targets.names(TARGETS) for seed in targets.seeds(name, TARGETS) if seed.language == "cuda"
]
NAMES = [f"{name}-{seed.name}" for name, seed in SEEDS]
SAMPLE = 3
MOST_ELEMENTS = 1 << 20
"""Of a check workload that is emulated each time."""

# Like the timed workloads of a device, but small: their element types, their odd sizes, rows that are read in parts.
SHRUNK = {
    "topk": (
        ({"batch": 3, "n": 40000, "k": 1024}, "float32", "scores"),
        ({"batch": 2, "n": 50001, "k": 4096}, "float32", "long_tail"),
        ({"batch": 2, "n": 40000, "k": 1000}, "bfloat16", "scores"),
        ({"batch": 2, "n": 8192, "k": 512}, "float16", "equal"),
    ),
    "request_broadcast": (
        ({"candidates": 5, "users": 3, "m": 433, "k_cand": 86, "k_user": 117, "n": 256}, "float16", "requests"),
        ({"candidates": 4, "users": 2, "m": 70, "k_cand": 866, "k_user": 1178, "n": 136}, "bfloat16", "shuffled"),
        ({"candidates": 3, "users": 2, "m": 65, "k_cand": 40, "k_user": 33, "n": 131}, "bfloat16", "special"),
    ),
    "grouped_gemm": (
        ({"groups": 16, "rows": 300, "k": 64, "n": 256}, "bfloat16", "uneven"),
        ({"groups": 9, "rows": 250, "k": 257, "n": 451}, "bfloat16", "uneven"),
        ({"groups": 130, "rows": 400, "k": 24, "n": 40}, "float16", "empty_ends"),
        ({"groups": 3, "rows": 100, "k": 40, "n": 48}, "bfloat16", "special"),
    ),
}  # fmt: skip


@cache
def operation(name: str) -> Target:
    return targets.load(name, TARGETS)


def shrunk(name: str) -> list[Workload]:
    return [
        Workload(
            name=f"small-{dtype}-{case}-{number}",
            role="check",
            device="gpu",
            axes=axes,
            dtypes={"T": dtype},
            inputs=case,
        )
        for number, (axes, dtype, case) in enumerate(SHRUNK[name])
    ]


def candidate(seed: Seed, **tunables: Value) -> Candidate:
    return Candidate(language="cuda", files=seed.files, tunables=tunables, lineage=Lineage(origin=seed.name))


def members(seed: Seed) -> list[dict[str, Value]]:
    """A sample of a seed's family, the same each time, in which every value of a tunable has a good chance."""
    space = CUDA.tunables(seed.files)
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    return random.Random(seed.name).sample(every, min(SAMPLE, len(every)))


def checks(name: str, most: int | None = None) -> list[Workload]:
    target = operation(name)

    def elements(workload: Workload) -> int:
        return sum(target.tensor_bytes(t, workload) for t in target.tensors) // 2

    return [w for w in target.select("gpu", "check") if most is None or elements(w) <= most]


@pytest.mark.parametrize("name", targets.names(TARGETS))
def test_a_target_ships_a_cuda_seed_with_tunables(name: str) -> None:
    seeds = [seed for other, seed in SEEDS if other == name]
    assert seeds
    assert all(CUDA.tunables(seed.files) for seed in seeds)


@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=NAMES)
def test_a_seed_is_admitted_without_a_hint(name: str, seed: Seed) -> None:
    assert CUDA.admit(seed.files) == ()
    assert CUDA.hints(seed.files) == ()


def assert_fits(name: str, seed: Seed, device: str, cache_dir: Path, **tunables: Value) -> None:
    found = triage(candidate(seed, **tunables), operation(name), known(device), cache_dir)
    assert found.passed, (tunables, [d.message for d in found.diagnostics])
    assert found.hints == ()
    assert {k.workload for k in found.kernels} == {w.name for w in operation(name).select("gpu", "search")}
    assert all(k.blocks_per_multiprocessor for k in found.kernels)
    if "topk" not in name:
        assert all(
            k.resources.instructions.tensor_core and k.resources.instructions.async_copies for k in found.kernels
        )


@pytest.mark.parametrize(
    ("name", "seed", "device"),
    [
        pytest.param(*seed, device, id=name, marks=[] if name == NAMES[0] else [pytest.mark.slow])
        for name, seed, device in zip(NAMES, SEEDS, itertools.cycle(("nvidia-h200", "nvidia-b200", "nvidia-a100")))
    ],
)
def test_a_seed_compiles_and_fits_a_device(name: str, seed: Seed, device: str, cache_dir: Path) -> None:
    assert_fits(name, seed, device, cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize("device", ["nvidia-a100", "nvidia-h200", "nvidia-b200"])
@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=NAMES)
def test_a_seed_compiles_and_fits_every_generation(name: str, seed: Seed, device: str, cache_dir: Path) -> None:
    assert_fits(name, seed, device, cache_dir)


def assert_right(
    name: str, seed: Seed, workloads: list[Workload], cache_dir: Path, order: int, **tunables: Value
) -> None:
    wrong = emulated(candidate(seed, **tunables), operation(name), workloads, cache_dir, order=order)
    assert not wrong, (tunables, [d.message for d in wrong])


@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=NAMES)
def test_a_seed_computes_right_whatever_the_order_of_its_threads(name: str, seed: Seed, cache_dir: Path) -> None:
    assert_right(name, seed, checks(name, MOST_ELEMENTS), cache_dir, order=1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=NAMES)
def test_a_seed_computes_right_on_every_check_and_in_every_type(name: str, seed: Seed, cache_dir: Path) -> None:
    assert_right(name, seed, [*checks(name), *shrunk(name)], cache_dir, order=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=NAMES)
def test_a_seed_computes_right_with_other_tunables(name: str, seed: Seed, cache_dir: Path) -> None:
    for order, tunables in enumerate(members(seed)):
        workloads = [*checks(name, MOST_ELEMENTS), *shrunk(name)]
        assert_right(name, seed, workloads, cache_dir, order, **tunables)
