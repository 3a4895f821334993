"""The red team: the command on a small folder, and the corpus that ships before the real judge."""

import json
from pathlib import Path

import pytest
from searching import judge_here, some_settings

from kernelevolve.cli.app import main
from kernelevolve.redteam import RedTeam, load
from kernelevolve.schema import Exploit
from kernelevolve.settings import Settings

CORPUS = Path(__file__).parent / "exploits"
QUICK = (
    "semantics/zeros", "semantics/half_rows", "timing/kept_by_pointer", "timing/late_thread", "channel/early_exit",
    "channel/forged_answer", "invented/lazy_until_last", "invented/slow_singles",
    "escape/network", "escape/child_process", "compiling/include_passwd", "clean/plain", "clean/threads_omp",
    "clean/prepared",
)  # fmt: skip
"""One of each kind, for every run of the tests."""

SOURCE = '#include "rms.h"\n\nvoid kernel(const Call& c) { %s; }\n'
CASE = 'target = "rms"\nexpected = "%s"\nrow = "zeros"\ndefence = "the rule"\nfiles = ["%s.cpp", "rms.h"]\n%s\n'


@pytest.fixture
def settings(tmp_path, cache_dir, monkeypatch):
    """Settings in the environment, and the judge in this process."""
    judge_here(monkeypatch)
    settings = some_settings(tmp_path, cache_dir, CORPUS / "targets")
    for name in ("cache", "targets"):
        monkeypatch.setenv(f"KERNELEVOLVE_{name.upper()}", str(getattr(settings, name)))
    monkeypatch.chdir(tmp_path)
    return settings


@pytest.fixture
def folder(tmp_path):
    """Somebody else's folder: one is caught, one is clean, one is held to be clean and isn't."""
    made = tmp_path / "theirs"
    made.mkdir()
    (made / "rms.h").write_text((CORPUS / "rms.h").read_text())
    for name, body, expected in (
        ("caught", "wrong(c)", "caught"), ("clean", "honest(c)", "clean"), ("missed", "wrong(c)", "clean"),
    ):  # fmt: skip
        (made / f"{name}.cpp").write_text(SOURCE % body)
        (made / f"{name}.toml").write_text(CASE % (expected, name, ""))
    return made


def judged(capfd, *words):
    """Exit code and document of `redteam ... --json`."""
    capfd.readouterr()
    code = main(["redteam", *map(str, words), "--json"])
    return code, json.loads(capfd.readouterr().out)


def test_shares_counts_and_misses_are_told_with_what_was_found(settings, folder, capfd):
    code, found = judged(capfd, folder)
    assert code == 3
    assert (found["recall"], found["false_alarms"]) == (1.0, 0.5)
    assert (found["exploits"], found["caught"], found["clean"], found["flagged"]) == (1, 1, 2, 1)
    assert found["misses"] == ["missed"]
    (missed,) = (o for o in found["outcomes"] if o["name"] == "missed")
    assert (missed["stage"], missed["kind"], missed["as_expected"]) == ("check", "numeric", False)
    assert main(["redteam", str(folder)]) == 3
    told = capfd.readouterr().out
    assert "recall: 1.000 (1 of 1 exploits caught)" in told
    assert "false_alarms: 0.500 (1 of 2 clean kernels flagged)" in told
    assert "failed at check: numeric" in told


def test_when_all_came_out_as_expected_the_exit_code_is_0(settings, folder, capfd):
    code, found = judged(capfd, folder, "--only", "c*")
    assert (code, found["misses"], len(found["outcomes"])) == (0, [], 2)


def test_caught_for_another_reason_than_named_is_not_as_expected(settings, folder, capfd):
    (folder / "caught.toml").write_text(CASE % ("caught", "caught", 'stage = "time"'))
    code, found = judged(capfd, folder, "--only", "caught")
    assert (code, found["recall"], found["mistaken"], found["misses"]) == (3, 1.0, 1, ["caught"])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("target = \n", "caught.toml"),
        (CASE % ("guilty", "caught", ""), "expected"),
        (CASE % ("caught", "caught", "colour = 1"), "colour"),
        (CASE % ("caught", "nowhere", ""), "nowhere.cpp"),
        (CASE % ("clean", "caught", 'kind = "numeric"'), "clean kernel"),
        ((CASE % ("caught", "caught", "")).replace('"rms"', '"no_such"'), "no_such"),
        (CASE % ("caught", "caught", 'workloads = ["cpu-1x1"]'), "cpu-1x1"),
        ('target = "rms"\nexpected = "caught"\nfiles = ["rms.h"]\n', "C++ or Python"),
    ],
)
def test_a_file_that_cannot_be_read_is_a_usage_error_that_names_the_key(settings, folder, capfd, text, named):
    (folder / "caught.toml").write_text(text)
    code, found = judged(capfd, folder)
    assert code == 2
    assert named in found["error"]["message"] + found["error"]["remedy"]


def test_a_folder_without_cases_and_a_pattern_without_a_fit_are_usage_errors(settings, folder, tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    for words in ((tmp_path / "empty",), (tmp_path / "nowhere",), (folder, "--only", "x*")):
        assert judged(capfd, *words)[0] == 2


# --- the corpus ---


@pytest.fixture(scope="module")
def corpus_settings(tmp_path_factory, cache_dir):
    return some_settings(tmp_path_factory.mktemp("redteam"), cache_dir, Path(__file__).parents[1] / "targets")


@pytest.fixture(scope="module")
def team(corpus_settings):
    with RedTeam(corpus_settings) as team:
        yield team


CASES = load(CORPUS, Settings(targets=Path(__file__).parents[1] / "targets"))
NAMED = {case.name: case for case in CASES}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in sorted(NAMED)]
)
def test_each_candidate_of_the_corpus_comes_out_as_its_file_says(team, name):
    found = team.judge(NAMED[name])
    assert found.as_expected, (found.stage, found.kind, found.message, found.speedup)


def test_the_corpus_names_the_defence_against_every_exploit_and_has_enough_clean_kernels():
    exploits: list[Exploit] = [c.exploit for c in CASES if c.exploit.expected == "caught"]
    assert all(e.row and e.defence for e in exploits)
    assert len({e.row for e in exploits if "(invented)" in e.row}) >= 10
    assert sum(c.exploit.expected == "clean" for c in CASES) >= 40
    assert set(QUICK) <= NAMED.keys()
