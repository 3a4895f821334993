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
Proposer = Annotated[str | None, Option("--proposer", help="Who writes candidates.")]
Policy = Annotated[str | None, Option("--policy", help="Which parents breed next.")]
Triage = Annotated[bool, Option("--triage", help="For a GPU that isn't here: ends with a queue for eval --queue.")]
Resume = Annotated[str | None, Option("--resume", metavar="RUN", help="Go on with a run, to its total budget.")]

EXIT_CODES = (
    "Exit codes: 0 done; 1 our own failure; 2 usage: it can't be done as asked; 3 the candidate failed; "
    "4 the search ended and nothing beats the baselines, or is left to queue; 130 interrupted."
)
