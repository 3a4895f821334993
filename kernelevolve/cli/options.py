"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

from typer import Option

AsJson = Annotated[bool, Option("--json", help="Print one JSON document on standard output, and nothing else there.")]
SettingsFile = Annotated[
    Path | None,
    Option("--settings", help="Settings file (default: kernelevolve.toml here, if there is one)."),
]
TargetsDir = Annotated[Path | None, Option("--targets", help="Folder of the targets.")]
PromptsDir = Annotated[Path | None, Option("--prompts", help="Folder of the prompts and the knowledge.")]
RegistryDir = Annotated[Path | None, Option("--registry", help="Folder of the certified kernels.")]
RunsDir = Annotated[Path | None, Option("--runs", help="Folder of the run database and the reports.")]
Threads = Annotated[int | None, Option("--threads", help="Threads that a kernel may use (default: all cores).")]
HardwareKey = Annotated[
    str | None, Option("--hardware", help="Key or alias of a device (default: this machine's CPU).")
]
Evals = Annotated[int | None, Option("--evals", help="Total budget of evaluations.")]
Minutes = Annotated[float | None, Option("--minutes", help="Wall-clock budget of this sitting.")]
Seed = Annotated[int | None, Option("--seed", help="Seed of proposer and policy.")]
Workers = Annotated[int | None, Option("--workers", help="Evaluations under way at once (default: all cores).")]
RequireSandbox = Annotated[
    Literal["any", "full"] | None,
    Option("--require-sandbox", help="full: refuse to run a candidate where a wall is missing (default: any)."),
]
Language = Annotated[str | None, Option("--language", help="Kernel language.")]
Proposer = Annotated[
    str | None, Option("--proposer", help="Who writes candidates (default: model where --model is given, else tuner).")
]
Policy = Annotated[str | None, Option("--policy", help="Which parents breed next.")]
Model = Annotated[
    list[str] | None,
    Option("--model", help="Model to ask: NAME, PROTOCOL:NAME or PROTOCOL:NAME@URL; may be given again."),
]
ModelsFile = Annotated[Path | None, Option("--models-file", help="File that adds models and prices to the table.")]
Lanes = Annotated[int | None, Option("--lanes", help="Questions to models under way at once.")]
Usd = Annotated[float | None, Option("--usd", help="Budget of US dollars for model calls.")]
Tokens = Annotated[int | None, Option("--tokens", help="Budget of input and output tokens of model calls.")]
DeviceSeconds = Annotated[
    float | None, Option("--device-seconds", help="Budget of time that evaluations take, in seconds.")
]
TargetSpeedup = Annotated[
    float | None, Option("--target-speedup", help="End early: the best is this much faster for certain.")
]
TargetRoofline = Annotated[
    float | None, Option("--target-roofline", help="End early: the best has this share of the roofline (0 to 1).")
]
Stall = Annotated[int | None, Option("--stall", help="End early: so many evaluations without a new best.")]
Knowledge = Annotated[
    bool | None, Option("--knowledge/--no-knowledge", help="Whether briefs carry documents (default: they do).")
]
Diagnostics = Annotated[
    bool | None,
    Option("--diagnostics/--no-diagnostics", help="Whether briefs tell what the judge found (default: yes)."),
]
Skills = Annotated[
    float | None, Option("--skills", help="Share of briefs that may carry what earlier runs learned (0 to 1).")
]
Tuning = Annotated[
    float | None,
    Option("--tuning", help="Share of briefs that the tuner answers beside a model (0: none at all; default: 0.2)."),
]
DryRun = Annotated[
    bool, Option("--dry-run", help="Only show the first question and what the search may cost; ask and write nothing.")
]
RecordTo = Annotated[
    Path | None, Option("--record", metavar="FILE", help="At the end write the run to a file, for --replay.")
]
ReplayFrom = Annotated[
    Path | None,
    Option("--replay", metavar="FILE", help="Live through a recorded run again; needs no model and no machine."),
]
Triage = Annotated[bool, Option("--triage", help="For a GPU that isn't here: ends with a queue for eval --queue.")]
Resume = Annotated[str | None, Option("--resume", metavar="RUN", help="Go on with a run, to its total budget.")]

CANDIDATE_FAILED = 3
NO_WIN = 4
EXIT_CODES = (
    "Exit codes: 0 done; 1 our own failure; 2 usage: it can't be done as asked, or a replay decides otherwise than the "
    "recorded run; 3 the candidate failed; 4 the search ended and nothing beats the baselines, or is left to queue; "
    "130 interrupted."
)
