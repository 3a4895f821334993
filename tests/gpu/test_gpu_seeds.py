"""Every GPU kernel that a target ships is right on the device, and a search there ends with one that is served."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from device_kernels import SOURCE, on_gpu

from kernelevolve import Runtime, targets
from kernelevolve.catalog import LANGUAGES
from kernelevolve.cli.app import main
from kernelevolve.harness.judge import Judge
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.schema import Candidate, Evaluation, Hardware, Job, Lineage, Passed, Seed, Target, TimingPlan

pytestmark = pytest.mark.gpu

TARGETS = Path(__file__).parents[2] / "targets"
ONCE = TimingPlan(confidence=0.5, min_pairs=1, max_pairs=1, turn_us=1.0)
"""Hardly any timing: what counts is that every call was right."""

SEEDS = [
    (name, seed) for name in targets.names(TARGETS) for seed in targets.seeds(name, TARGETS)
    if "gpu" in LANGUAGES.load(seed.language).devices
]  # fmt: skip

Judged = Callable[[str, Seed, dict[str, int | str]], Evaluation]


@pytest.fixture(scope="module")
def judged(gpu: Hardware, cache_dir: Path) -> Iterator[Judged]:
    judge = Judge(cache_dir)
    seen: dict[str, Target] = {}

    def run(name: str, seed: Seed, tunables: dict[str, int | str]) -> Evaluation:
        if name not in seen:
            judge.close()  # one target's inputs at a time fill enough of the device
            seen[name] = targets.load(name, TARGETS)
        target = seen[name]
        plain = next(b.name for b in target.baselines if not b.compiled and "gpu" in b.devices)
        candidate = Candidate(
            language=seed.language, files=seed.files, tunables=tunables, lineage=Lineage(origin=seed.name)
        )
        job = Job(
            target=target, candidate=candidate, hardware=gpu, timing=ONCE, threads=4, cache_dir=str(cache_dir),
            baselines={w.name: (plain,) for w in target.select("gpu", "search")},
        )  # fmt: skip
        return judge.evaluate(job)

    yield run
    judge.close()


@pytest.mark.parametrize(("name", "seed"), SEEDS, ids=[f"{n}-{s.language}-{s.name}" for n, s in SEEDS])
def test_a_seed_is_right_at_serving_scale(name: str, seed: Seed, judged: Judged, gpu: Hardware) -> None:
    if seed.language == "cuda" and gpu.vendor != "nvidia":
        pytest.skip("CUDA C++ runs on NVIDIA devices")
    evaluation = judged(name, seed, {})
    faults = [] if isinstance(evaluation, Passed) else [d for d in evaluation.diagnostics if d.kind != "unsettled"]
    assert not faults, [d.message for d in faults]


@pytest.fixture
def tiny_on_gpu(tiny: Target, tiny_target_folder: Path, tmp_path: Path) -> Path:
    """The tiny target at a device's scale, as a folder, with one seed in Triton."""
    folder = tmp_path / "targets" / "tiny"
    folder.mkdir(parents=True)
    for name, text in tiny.files.items():
        (folder / name).write_text(text)
    text = (tiny_target_folder / "tiny" / "target.toml").read_text()
    for workload in on_gpu(tiny, 256).workloads:
        before = f"rows = {tiny.workload(workload.name).axes['rows']}, n = {workload.axes['n']} }}"
        text = text.replace(before, f"rows = {workload.axes['rows']}, n = {workload.axes['n']} }}")
    (folder / "target.toml").write_text(text.replace('device = "cpu"', 'device = "gpu"'))
    seeds = folder / "seeds" / "triton"
    seeds.mkdir(parents=True)
    tuned = 'TUNABLES = {"BLOCK_SIZE": [8192, 1024, 2048, 4096]}'
    source = SOURCE.replace("@GLOBALS@", tuned).replace("8192", "BLOCK_SIZE").replace("[BLOCK_SIZE,", "[8192,")
    (seeds / "scale.py").write_text(source.replace("@BODY@", "launch(x, factor, out)"))
    return tmp_path / "targets"


def test_a_search_on_the_device_is_certified_or_says_that_nothing_wins_and_is_served(
    tiny_on_gpu: Path, tmp_path: Path, gpu: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = tmp_path / "registry"
    code = main([
        "search", "tiny", "--hardware", gpu.key, "--evals", "3", "--targets", str(tiny_on_gpu), "--workers", "1",
        "--runs", str(tmp_path / "runs"), "--registry", str(registry), "--json",
    ])  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert code in (0, 4), document
    assert document["evaluated"] == 3
    assert document["failed"] == 0
    assert document["hardware"] == gpu.key
    if document["verdict"] == "certified":
        (stored,) = LocalRegistry(registry).entries("tiny")
        box = stored.entry.domain[0]
        x = torch.randn(box.axes["rows"][0], box.axes["n"][0], device="cuda")
        factor = torch.randn(box.axes["n"][0], device="cuda")
        op = Runtime(registry, hardware=gpu.key, targets=tiny_on_gpu).op("tiny")
        torch.testing.assert_close(op(x, factor), x * factor)
        assert op.stats.hits == 1


def test_a_queue_from_elsewhere_is_drained(
    tiny_on_gpu: Path, tmp_path: Path, gpu: Hardware, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--targets", str(tiny_on_gpu), "--json"]
    runs = tmp_path / "runs"
    arguments = ["search", "tiny", "--triage", "--hardware", gpu.key, "--evals", "2", "--runs", str(runs)]
    assert main([*arguments, *common]) == 0
    capsys.readouterr()
    (queue,) = runs.rglob("queue.json")
    assert main(["eval", "--queue", str(queue), *common]) == 0
    results = queue.with_name("queue.results.jsonl").read_text().splitlines()
    assert len(results) == 2
