"""The commands `knowledge ...`: what briefs can draw on, and what runs learned."""

from typing import TYPE_CHECKING, Annotated

import typer

from kernelevolve import settings, targets
from kernelevolve.cli import output
from kernelevolve.cli.options import AsJson, HardwareKey, Language, PromptsDir, RunsDir, SettingsFile, TargetsDir
from kernelevolve.errors import UsageError
from kernelevolve.hardware import described, detect
from kernelevolve.prompts import Prompts
from kernelevolve.resources import prompts_dir, targets_dir
from kernelevolve.runs import Runs
from kernelevolve.schema import Hardware
from kernelevolve.settings import Settings

if TYPE_CHECKING:
    from kernelevolve.knowledge import Library

app = typer.Typer(help="What briefs can draw on.", no_args_is_help=True)


@app.command("list")
def list_documents(
    folder: PromptsDir = None, runs: RunsDir = None, file: SettingsFile = None, as_json: AsJson = False
) -> None:
    """List the documents, and what past runs learned."""
    library = _library(settings.load(file, prompts=folder, runs=runs))
    if as_json:
        output.document(list(library.lines))
        return
    output.table(
        ("DOCUMENT", "OPERATIONS", "BOTTLENECKS", "HARDWARE", "LANGUAGES"),
        [
            (
                line.path,
                *(" ".join(tags) for tags in (line.operations, line.bottlenecks, line.hardware, line.languages)),
            )
            for line in library.lines
        ],
    )


@app.command()
def show(
    path: Annotated[str, typer.Argument(help="Path of the document, for instance guidance/tiling.md.")],
    folder: PromptsDir = None,
    runs: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show a document."""
    document = _library(settings.load(file, prompts=folder, runs=runs)).document(path)
    if as_json:
        output.document(document)
        return
    output.text(document.text.rstrip())


@app.command()
def search(
    words: Annotated[list[str] | None, typer.Argument(help="Words to look for.")] = None,
    *,
    target: Annotated[str | None, typer.Option("--target", help="Operation that it is for.")] = None,
    bottleneck: Annotated[str, typer.Option("--bottleneck", help="What holds the kernel back most.")] = "unknown",
    language: Language = None,
    hardware: HardwareKey = None,
    skills: Annotated[bool, typer.Option("--skills", help="Also what past runs learned.")] = False,
    targets_folder: TargetsDir = None,
    folder: PromptsDir = None,
    runs: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Say which documents a brief would carry in a situation, the best first."""
    from kernelevolve.knowledge import Query

    chosen = settings.load(file, prompts=folder, runs=runs, targets=targets_folder)
    loaded = targets.load(target, targets_dir(chosen.targets)) if target else None
    query = Query(
        target=loaded.name if loaded else "",
        summary=" ".join((*(words or ()), loaded.summary if loaded else "")).strip(),
        language=language,
        hardware=_machine(hardware) if hardware else None,
        bottleneck=bottleneck,
        skills=skills,
    )
    library = _library(chosen)
    matches = library.find(query)
    taken = {document.path for document in library.retrieve(query)}
    if as_json:
        output.document([{**match.model_dump(), "carried": match.line.path in taken} for match in matches])
        return
    if not matches:
        output.note("nothing fits; kernelevolve knowledge list shows what there is")
    output.table(
        ("", ">SCORE", "DOCUMENT", "WHAT IT GIVES"),
        [
            (
                "always" if m.always else "carried" if m.line.path in taken else "",
                f"{m.score:.2f}",
                m.line.path,
                m.line.gives,
            )
            for m in matches
        ],
    )


@app.command()
def check(folder: PromptsDir = None, runs: RunsDir = None, file: SettingsFile = None, as_json: AsJson = False) -> None:
    """Look for mistakes in the index and the documents."""
    from kernelevolve.knowledge.checking import problems

    chosen = settings.load(file, prompts=folder, runs=runs)
    found = problems(Prompts(prompts_dir(chosen.prompts)), Runs(chosen.runs).skills)
    if as_json:
        output.document({"ok": not found, "problems": found})
    else:
        for problem in found:
            output.text(problem)
        output.text(f"{len(found)} problems" if found else "ok")
    if found:
        raise typer.Exit(UsageError.exit_code)


@app.command()
def learn(
    name: Annotated[str, typer.Argument(help="Name of the run.")],
    runs: RunsDir = None,
    file: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Distil what a run learned into a document that later runs can draw on."""
    from kernelevolve.knowledge.skill_shelf import learn as keep
    from kernelevolve.knowledge.skills import distil
    from kernelevolve.store import SqlStore

    layout = Runs(settings.load(file, runs=runs).runs)
    with SqlStore.open(layout.database, read_only=True) as store:
        skill = distil(store.run(name))
    page = keep(layout.skills, skill) if skill else None
    if as_json:
        output.document({"run": name, "skill": skill, "document": str(page) if page else None})
    elif skill and page:
        output.text(f"{page}; changes that helped: {len(skill.helps)}, kinds of failure: {len(skill.faults)}")
    else:
        output.note(f"run {name} settled nothing: no change was faster for certain, and no failure says why")


def _machine(name: str) -> Hardware:
    """This machine's CPU, or a GPU that needn't be here."""
    own = detect()
    return own if name in (own.key, *own.aliases) else described(name)


def _library(chosen: Settings) -> "Library":
    from kernelevolve.knowledge import Library

    return Library.load(Prompts(prompts_dir(chosen.prompts)), Runs(chosen.runs).skills)
