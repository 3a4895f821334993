"""Every kernel that a target ships is right."""

import itertools
import random
from functools import cache
from pathlib import Path

import pytest

from kernelevolve import hardware, targets
from kernelevolve.catalog import LANGUAGES
from kernelevolve.harness.judge import Judge
from kernelevolve.schema import Candidate, Job, Lineage, Passed, TimingPlan

TARGETS = Path(__file__).parent.parent.parent / "targets"
ONCE = TimingPlan(confidence=0.5, min_pairs=1, max_pairs=1, turn_us=1.0)
"""Hardly any timing: what counts is that every call was right."""

SAMPLE = 6

SEEDS = [
    (name, seed)
    for name in targets.names(TARGETS)
    for seed in targets.seeds(name, TARGETS)
    if seed.language == "cpp"  # kernels of other languages need a GPU to be judged
]
NAMES = [f"{name}-{seed.name}" for name, seed in SEEDS]


@pytest.fixture(scope="module")
def judged(cache_dir):
    """Judge a seed with these tunables."""
    judge = Judge(cache_dir)
    machine = hardware.detect()

    @cache
    def target(name):
        return targets.load(name, TARGETS)

    def run(name, seed, tunables):
        operation = target(name)
        plain = next(b.name for b in operation.baselines if not b.compiled and "cpu" in b.devices)
        candidate = Candidate(
            language=seed.language, files=seed.files, tunables=tunables, lineage=Lineage(origin=seed.name)
        )
        job = Job(
            target=operation,
            candidate=candidate,
            hardware=machine,
            baselines={w.name: (plain,) for w in operation.select("cpu", "search")},
            timing=ONCE,
            threads=machine.cores,
            cache_dir=str(cache_dir),
        )
        return judge.evaluate(job)

    yield run
    judge.close()


def members(seed):
    """All members of a seed's family, or a sample that is the same each time."""
    space = LANGUAGES.load(seed.language)().tunables(seed.files)
    every = [dict(zip(space, values, strict=True)) for values in itertools.product(*space.values())]
    return random.Random(seed.name).sample(every, SAMPLE) if len(every) > SAMPLE else every


def assert_right(evaluation):
    """Whether every call was right; a time that this little timing can't tell is no fault of the kernel."""
    faults = [] if isinstance(evaluation, Passed) else [d for d in evaluation.diagnostics if d.kind != "unsettled"]
    assert not faults, f"{evaluation.stage}: {[d.message for d in faults]}"


QUICK = ("topk-block_maxima", "request_broadcast-fused_users", "grouped_gemm-row_blocks")
"""One of each target, for every run of the tests."""


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        pytest.param(*seed, id=n, marks=[] if n in QUICK else [pytest.mark.slow])
        for seed, n in zip(SEEDS, NAMES, strict=True)
    ],
)
def test_a_seed_is_right_as_it_stands(name, seed, judged):
    assert_right(judged(name, seed, {}))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=NAMES)
def test_a_seed_is_right_with_other_tunables(name, seed, judged):
    for tunables in members(seed):
        assert_right(judged(name, seed, tunables))


@pytest.mark.parametrize("name", targets.names(TARGETS))
def test_a_target_ships_a_plain_seed_and_at_least_two_others(name):
    found = [seed.name for other, seed in SEEDS if other == name]
    assert len(found) >= 3
