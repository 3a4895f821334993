"""How well static estimates rank candidates: rank correlation of estimate and measurement on this machine's GPU.

For each target, candidates are drawn without regard to their estimates (the policy random), triaged, and those that
pass are all measured. The result is printed whatever it is.
"""

import argparse
import sys
from pathlib import Path

from kernelevolve import hardware, settings
from kernelevolve.cli.output import document, failure, note
from kernelevolve.cli.queue import agreement_line
from kernelevolve.drain import Drained, Outcome, drain
from kernelevolve.errors import KernelevolveError, UsageError
from kernelevolve.queueing import queue_of
from kernelevolve.runs import Runs, write_queue
from kernelevolve.schema import Hardware
from kernelevolve.search import TRIAGE, Session
from kernelevolve.settings import Settings
from kernelevolve.store import SqlStore

TARGETS = ("topk", "request_broadcast", "grouped_gemm")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--target", action="append", help="only this target; may be given again")
    parser.add_argument("--candidates", type=int, default=30, help="drawn for each target")
    parser.add_argument("--hardware", help="key or alias of a GPU of this machine (default: the first)")
    parser.add_argument("--language", default="triton")
    parser.add_argument("--minutes", type=float, help="of measuring, for each target (default: as long as it takes)")
    parser.add_argument("--runs", type=Path, help="folder of the searches (default: as the settings say)")
    options = parser.parse_args()
    try:
        key = gpu(options.hardware).key
        found = []
        for target in options.target or TARGETS:
            chosen = settings.load(
                evals=options.candidates, policy="random", hardware=key, language=options.language, runs=options.runs,
                minutes=options.minutes,
            )  # fmt: skip
            found.append(measured(chosen, target))
    except KernelevolveError as error:
        failure(error, as_json=options.json)
        return error.exit_code
    if options.json:
        document({"hardware": key, "targets": [as_row(outcome) for outcome in found]})
    else:
        for outcome in found:
            print(f"{outcome.target.name} on {key}: {agreement_line(outcome.agreement)}")
    return 0


def gpu(name: str | None) -> Hardware:
    """The GPU of that name, or the first. Raises `UsageError` where there is none."""
    present = [h for h in hardware.detect_all() if h.device == "gpu" and name in (None, h.key, *h.aliases)]
    if not present:
        raise UsageError(
            f"there is no GPU {name or ''}".rstrip() + " on this machine, so nothing to hold estimates against",
            remedy="run it on a machine with a GPU and its driver (kernelevolve doctor says what is missing)",
        )
    return present[0]


def measured(chosen: Settings, target: str) -> Outcome:
    """Draw, triage and measure candidates of one target."""
    search = chosen.model_copy(update={"minutes": None})
    session = Session.start(search, target, TRIAGE)
    note(f"{target}: triage of {chosen.evals} candidates")
    session.run(lambda _: None)
    runs = Runs(chosen.runs)
    with SqlStore.open(runs.database, read_only=True) as store:
        queue = queue_of(store.run(session.spec.run))
    path = runs.queue_path(session.spec.run)
    write_queue(path, queue)
    return drain(chosen, [path], say)


def say(one: Drained, left: int) -> None:
    note(
        f"  estimate {one.entry.estimated_us}, measured {one.measured_us} us, {one.entry.candidate.label}; {left} left"
    )


def as_row(outcome: Outcome) -> dict[str, object]:
    return {
        "target": outcome.target.name,
        "queued": outcome.queued,
        "left": outcome.left,
        "agreement": None if outcome.agreement is None else vars(outcome.agreement),
        "pairs": [
            {"label": d.entry.candidate.label, "estimated_us": d.entry.estimated_us, "measured_us": d.measured_us}
            for d in outcome.drained
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
