"""The command `compare`."""

import json

import pytest
from searching import environment, landscape, some_settings

from kernelevolve.cli.app import main


def test_policies_stand_side_by_side_on_a_landscape(capsys):
    arguments = ["compare", "--landscape", "ridge", "--policy", "greedy", "--policy", "best-of-n"]
    assert main([*arguments, "--seeds", "2", "--evals", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("ridge: best after n evaluations, mean of 2 seeds")
    assert [line.split()[0] for line in lines[1:]] == ["POLICY", "greedy", "best-of-n"]


def test_a_comparison_is_one_json_document(capsys):
    arguments = ["compare", "--landscape", "trap", "--policy", "adaptive", "--seeds", "2", "--evals", "30", "--json"]
    assert main(arguments) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (found["subject"], found["evaluations"], found["seeds"]) == ("trap", 30, [0, 1])
    (standing,) = found["standings"]
    assert [mark["evaluations"] for mark in standing["marks"]] == [10, 25, 30]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "needs either a target or --landscape"),
        (("topk", "--landscape", "ridge"), "needs either a target or --landscape"),
        (("--landscape", "rigde"), "no landscape is called 'rigde'"),
        (("--landscape", "ridge", "--policy", "gredy"), "no policy is called 'gredy'"),
    ],
)
def test_what_can_not_be_compared_is_said_at_once(arguments, said, capsys):
    assert main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_policies_stand_side_by_side_on_a_target(tmp_path, cache_dir, tiny_target_folder, monkeypatch, capsys):
    settings = some_settings(tmp_path, cache_dir, tiny_target_folder, evals=3)
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    landscape(monkeypatch, lambda job: 1.0 + sum(v for v in job.candidate.tunables.values()) / 100)
    assert main(["compare", "tiny", "--policy", "adaptive", "--policy", "tree", "--seeds", "2", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (found["subject"], found["evaluations"], len(found["seeds"])) == ("tiny", 3, 2)
    assert {standing["policy"] for standing in found["standings"]} == {"adaptive", "tree"}
    assert all(standing["marks"][-1]["mean"] > 1 for standing in found["standings"])
