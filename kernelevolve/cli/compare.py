"""The command `compare`: policies side by side, on landscapes or on a target."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kernelevolve import settings
from kernelevolve.catalog import POLICIES
from kernelevolve.cli import output
from kernelevolve.cli.options import AsJson, Evals, HardwareKey, Language, Proposer, RunsDir, SettingsFile, TargetsDir
from kernelevolve.errors import UsageError
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.compare import Comparison, Play

_LANDSCAPE_EVALS = 200


def compare(
    target: Annotated[str | None, typer.Argument(help="Name of the target; left out with --landscape.")] = None,
    *,
    landscape: Annotated[
        list[str] | None, typer.Option(help="A made-up landscape; may be given again. all: every one.")
    ] = None,
    policy: Annotated[list[str] | None, typer.Option(help="Only this policy; may be given again.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Searches with each policy (default: 20; a target: 3).")
    ] = None,
    lanes: Annotated[int, typer.Option(min=1, help="On a landscape: evaluations under way at once.")] = 1,
    evals: Evals = None,
    hardware: HardwareKey = None,
    language: Language = None,
    proposer: Proposer = None,
    runs: RunsDir = None,
    targets: TargetsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Run policies side by side with the same seeds, and print the best at n with bootstrap intervals."""
    if (target is None) == (not landscape):
        raise UsageError(
            "a comparison needs either a target or --landscape", remedy="for instance: compare --landscape trap"
        )
    names = policy or list(POLICIES.names())
    for name in names:
        POLICIES.load(name)
    if target is None:
        found = _on_landscapes(landscape or [], names, range(seeds or 20), evals or _LANDSCAPE_EVALS, lanes)
    else:
        chosen = settings.load(
            file, evals=evals, hardware=hardware, language=language, proposer=proposer, runs=runs, targets=targets
        )  # fmt: skip
        found = [_on_target(chosen, target, names, range(chosen.seed, chosen.seed + (seeds or 3)))]
    if as_json:
        output.document({"comparisons": found})
        return
    for comparison in found:
        show(comparison)


def show(comparison: "Comparison") -> None:
    """Print one comparison as a table."""
    share = f"{100 * comparison.confidence:.0f} %"
    output.text(
        f"{comparison.subject}: best after n evaluations, mean of {len(comparison.seeds)} seeds with {share} interval"
    )
    columns = [f">{mark.evaluations}" for mark in comparison.standings[0].marks]
    output.table(
        ("POLICY", *columns, f"INTERVAL AT {comparison.evaluations}"),
        [
            (s.policy, *(f"{mark.mean:.3f}" for mark in s.marks), f"[{s.marks[-1].low:.3f}, {s.marks[-1].high:.3f}]")
            for s in comparison.standings
        ],
    )


def _on_landscapes(
    names: Sequence[str], policies: Sequence[str], seeds: Sequence[int], evals: int, lanes: int
) -> "list[Comparison]":
    from kernelevolve.compare import compare as side_by_side
    from kernelevolve.testing.numeric_landscapes import NumericLandscape, landscape, landscapes
    from kernelevolve.testing.play import play

    found = []
    for name in landscapes() if "all" in names else names:
        ground = landscape(name)

        def player(policy: str, seed: int, ground: NumericLandscape = ground) -> Sequence[float]:
            return play(ground, policy, seed, evals, lanes).best

        found.append(side_by_side(name, policies, seeds, evals, _told(name, player)))
    return found


def _on_target(chosen: Settings, target: str, policies: Sequence[str], seeds: Sequence[int]) -> "Comparison":
    from kernelevolve.compare import best_after_each
    from kernelevolve.compare import compare as side_by_side
    from kernelevolve.runs import Runs
    from kernelevolve.search import Session
    from kernelevolve.store import SqlStore

    def player(policy: str, seed: int) -> Sequence[float]:
        result = Session.start(chosen.model_copy(update={"policy": policy, "seed": seed}), target).run(lambda _: None)
        with SqlStore.open(Runs(chosen.runs).database, read_only=True) as store:
            return best_after_each(store.run(result.run).steps)

    return side_by_side(target, policies, seeds, chosen.evals, _told(target, player))


def _told(subject: str, player: "Play") -> "Callable[[str, int], Sequence[float]]":
    """Say on standard error what is being played: it takes a while."""

    def play(policy: str, seed: int) -> Sequence[float]:
        output.note(f"{subject}: {policy}, seed {seed}")
        return player(policy, seed)

    return play
