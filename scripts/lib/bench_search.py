"""How well the policies search: best after 200 evaluations on landscapes with known optima, mean of 20 seeds.

Every policy stands beside random, greedy and best-of-n, with bootstrap intervals; landscapes made to find out where
the default fails are part of it. Also: what a policy's own work (ask and tell) costs an evaluation as a run grows.
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from kernelevolve.catalog import POLICIES
from kernelevolve.cli.output import document, failure, note, table
from kernelevolve.compare import Comparison, compare
from kernelevolve.errors import KernelevolveError
from kernelevolve.policies.base import Plan
from kernelevolve.schema import Parent
from kernelevolve.testing.numeric_landscapes import landscape, landscapes
from kernelevolve.testing.play import Player, play

DEFAULT = "adaptive"
AIMS = {"ridge": 0.95, "trap": 0.85}
"""with 200 evaluations, one after the other"""
SIZES = (100, 1_000, 10_000)
WINDOW = 100
"""evaluations before each size over which the cost is averaged"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--landscape", action="append", help="only this one; may be given again")
    parser.add_argument("--policy", action="append", help="only this one; may be given again")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evals", type=int, default=200)
    parser.add_argument("--lanes", type=int, default=1, help="evaluations under way at once")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--no-cost", action="store_true", help="leave out what ask and tell cost")
    options = parser.parse_args()
    try:
        policies = options.policy or list(POLICIES.names())
        names = options.landscape or list(landscapes())
        began = time.monotonic()
        with ProcessPoolExecutor(options.jobs) as pool:
            rows = [(n, policies, options.seeds, options.evals, options.lanes) for n in names]
            found = list(pool.map(compared, *zip(*rows, strict=True)))
            costs = [] if options.no_cost else list(pool.map(cost, policies))
        note(f"{time.monotonic() - began:.0f} s")
    except KernelevolveError as error:
        failure(error, as_json=options.json)
        return error.exit_code
    if options.json:
        document({"default": DEFAULT, "aims": AIMS, "comparisons": found, "ask_and_tell_ms": costs})
        return 0
    show(found, policies)
    as_specified = options.evals == 200 and options.lanes == 1
    for name, aim in AIMS.items() if as_specified else ():
        for mean in (mean_of(c, DEFAULT) for c in found if c.subject == name and DEFAULT in policies):
            print(f"aim on {name}: {aim}; {DEFAULT}: {mean:.3f}, {'reached' if mean >= aim else 'missed'}")
    if costs:
        print(f"\nask and tell, milliseconds an evaluation, over the {WINDOW} evaluations before the nth")
        table(("POLICY", *(f">{n}" for n in SIZES)), [(c["policy"], *(f"{ms:.3f}" for ms in c["ms"])) for c in costs])
    return 0


def compared(name: str, policies: Sequence[str], seeds: int, evals: int, lanes: int) -> Comparison:
    ground = landscape(name)
    note(f"{name}: {ground.summary}")
    return compare(name, policies, range(seeds), evals, lambda p, seed: play(ground, p, seed, evals, lanes).best)


def show(found: Sequence[Comparison], policies: Sequence[str]) -> None:
    first = found[0]
    print(f"best after {first.evaluations} evaluations, mean of {len(first.seeds)} seeds, 1 is the optimum")
    table(
        ("LANDSCAPE", *(f">{p}" for p in policies), f"{DEFAULT.upper()}, 95 %", "FIRST"),
        [(c.subject, *(f"{mean_of(c, p):.3f}" for p in policies), interval(c), c.standings[0].policy) for c in found],
    )


def mean_of(comparison: Comparison, policy: str) -> float:
    return next(s.marks[-1].mean for s in comparison.standings if s.policy == policy)


def interval(comparison: Comparison) -> str:
    marks = [s.marks[-1] for s in comparison.standings if s.policy == DEFAULT]
    return "".join(f"[{mark.low:.3f}, {mark.high:.3f}]" for mark in marks)


class Timed:
    """A policy with a watch: seconds of its own for each step told."""

    def __init__(self, name: str) -> None:
        kind = POLICIES.load(name)
        self.name = name
        self._policy = kind(kind.Config(), seed=0, changes=("rewrite",))
        self._spent = 0.0
        self.seconds: list[float] = []

    def ask(self) -> Plan:
        began = time.perf_counter()
        plan = self._policy.ask()
        self._spent += time.perf_counter() - began
        return plan

    def tell(self, step: int, outcome: Parent | None) -> None:
        began = time.perf_counter()
        self._policy.tell(step, outcome)
        self.seconds.append(self._spent + time.perf_counter() - began)
        self._spent = 0.0

    def statistics(self) -> dict[str, float]:
        return self._policy.statistics()


def cost(policy: str) -> dict[str, object]:
    """On the landscape with most niches; 8 lanes, as in a search with a language model."""
    note(f"cost of {policy}")
    timed = Timed(policy)
    Player(landscape("families-64"), timed, 0).play(SIZES[-1], lanes=8)
    return {"policy": policy, "ms": [1e3 * sum(timed.seconds[n - WINDOW : n]) / WINDOW for n in SIZES], "sizes": SIZES}


if __name__ == "__main__":
    sys.exit(main())
