"""A finished search of the doubling target, with what a search leaves behind: wins, losses, failures."""

import math

from kernelevolve.schema import Candidate, Entry, Lineage, Provenance, Run, Step
from kernelevolve.testing.records import (
    a_calibration,
    a_candidate,
    a_failed,
    a_hardware,
    a_measurement,
    a_passed,
    a_proposal,
    a_run_spec,
    a_target,
    an_environment,
    an_event,
)


def step(number: int, candidate: Candidate, speedup: float | None, confirmed: float | None = None) -> Step:
    search = a_failed(candidate) if speedup is None else a_passed(candidate, speedup)
    again = () if confirmed is None else (a_passed(candidate, confirmed, purpose="confirm"),)
    return Step(
        number=number,
        proposal=a_proposal(candidate),
        candidate=candidate,
        evaluation=search,
        confirmations=again,
    )


def retuned(parent: Candidate, block: int) -> Candidate:
    lineage = Lineage(change="retune", parents=(parent.digest,), origin="main.cpp")
    return a_candidate(tunables={"BLOCK": block}, lineage=lineage)


def a_run(**changes) -> Run:
    """Steps 0 to 4: 0.8x, a failure, 1.6x (confirmed 1.5x), 2.0x (confirmed 1.2x), under way."""
    seed = a_candidate()
    better, lucky = retuned(seed, 16), retuned(seed, 32)
    steps = (
        step(0, seed, 0.8),
        step(1, a_candidate(tunables={"BLOCK": 64}), None),
        step(2, better, 1.6, confirmed=1.5),
        step(3, lucky, 2.0, confirmed=1.2),
        Step(number=4, proposal=a_proposal(a_candidate(tunables={"BLOCK": 128}))),
    )
    fields = {
        "spec": a_run_spec(),
        "calibration": a_calibration(),
        "steps": steps,
        "events": (an_event(), an_event("finished")),
    }
    return Run(**{**fields, **changes})


def a_long_run(count: int = 60) -> Run:
    """A run of many steps, for the eye."""
    seed = a_candidate()
    steps = []
    for number in range(count):
        candidate = retuned(seed, 8 * (number + 1))
        speedup = 0.7 + 2.0 * (1 - math.exp(-number / 15)) * (0.6 + 0.4 * math.sin(number * 7.3))
        good = number in (0, 3, 9, 21, 34, 47)
        steps.append(
            step(number, candidate, None if number % 11 == 5 else speedup, confirmed=speedup if good else None)
        )
    return Run(spec=a_run_spec(evals=count), calibration=a_calibration(), steps=tuple(steps), events=(an_event(),))


def an_entry(run: str, candidate: Candidate) -> Entry:
    losing = a_measurement(0.9, workload="n2048", axes={"N": 2048})
    return Entry(
        target="double",
        target_digest=a_target().digest,
        hardware=a_hardware(),
        candidate=candidate,
        domain=({"dtypes": {"T": "float32"}, "axes": {"N": (1024, 1024)}},),
        evidence=(a_measurement(1.45), losing),
        environment=an_environment(),
        provenance=Provenance(run=run, created_at="2026-01-02T03:10:00+00:00", kernelevolve="0.1.0"),
    )
