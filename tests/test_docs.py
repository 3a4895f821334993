"""The documents say what there is, and what they say works."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from kernelevolve.cli.app import app, main
from kernelevolve.cli.options import EXIT_CODES
from kernelevolve.hardware.devices import known
from kernelevolve.settings import Settings
from kernelevolve.testing.records import a_hardware

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PROGRAM = typer.main.get_command(app)


def reachable():
    """The README, and the documents of this repository that it leads to."""
    found, left = {}, [README]
    while left:
        page = left.pop()
        if page not in found:
            found[page] = page.read_text()
            left += [to for to in links(page) if to.suffix == ".md" and to.is_file()]
    return found


def links(page):
    """Files that a document links to."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    return [(page.parent / to.partition("#")[0]).resolve() for to in targets if "://" not in to and to[0] != "#"]


def commands(command=PROGRAM, path=()):
    """Every command of the program, with the words that lead to it."""
    inner = getattr(command, "commands", None)
    if inner is None:
        yield " ".join(path), command
        return
    for name, child in inner.items():
        yield from commands(child, (*path, name))


def options():
    """Every option of every command."""
    every = {option for _, command in commands() for p in command.params for option in p.opts if option[0] == "-"}
    return sorted(every | {option for p in PROGRAM.params for option in p.opts if option.startswith("--")})


def shown(language):
    """Lines of the code blocks of the README, comments removed."""
    for block in re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            if words := shlex.split(line, comments=True):
                yield words


DOCUMENTS = reachable()
SHOWN = [words for words in shown("sh") if words]


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_is_documented(name):
    assert any(f"kernelevolve {name}" in text for text in DOCUMENTS.values())


@pytest.mark.parametrize("option", options())
def test_every_option_is_documented(option):
    mentioned = rf"(?<![\w-]){re.escape(option)}(?![\w-])"
    assert any(re.search(mentioned, text) for text in DOCUMENTS.values())


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_command_and_option_has_a_help_text(name):
    command = dict(commands())[name]
    assert command.help
    assert all(getattr(parameter, "help", None) for parameter in command.params)


@pytest.mark.parametrize("words", SHOWN, ids=" ".join)
def test_what_the_readme_shows_can_be_typed(words):
    if words[0] == "kernelevolve":
        context = PROGRAM.make_context("kernelevolve", words[1:])
        assert parsed(context) is not None
    else:
        script = ROOT / words[0]
        assert script.is_file()
        assert script.stat().st_mode & 0o111


def parsed(context):
    """Resolve the commands within a command line, without running any: the last one's context."""
    while hasattr(context.command, "commands"):
        left = [*context._protected_args, *context.args]
        if not left:
            assert context.command.invoke_without_command
            return context
        name, command, rest = context.command.resolve_command(context, left)
        assert command is not None
        context = command.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize("line", ["search topk --evaluations 3", "serach topk", "search topk --evals many"])
def test_a_line_that_cannot_be_typed_would_be_noticed(line):
    with pytest.raises(Exception, match=r"(?i)no such|valid integer"):
        parsed(PROGRAM.make_context("kernelevolve", line.split()))


@pytest.mark.parametrize("words", [[], ["search"], ["eval"]], ids=" ".join)
def test_help_documents_the_exit_codes(words, capsys):
    assert main([*words, "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    for code in EXIT_CODES.removeprefix("Exit codes: ").split("; "):
        assert code in told


def test_the_readme_has_the_same_exit_codes():
    text = README.read_text()
    (line,) = (line for line in text.splitlines() if line.startswith("Exit codes: "))
    assert re.findall(r"\d+", line) == re.findall(r"\d+", EXIT_CODES)


def test_the_readme_has_the_defaults_of_the_settings():
    lines = [line for line in README.read_text().splitlines() if line.startswith("| `--")]
    rows = {line.split("`")[1]: line.split("|")[-2].strip() for line in lines}
    for name in ("evals", "seed", "policy", "lanes", "skills"):
        assert rows[f"--{name}"].strip("`") == str(Settings.model_fields[name].default)
    assert Settings().chosen_proposer == "tuner"
    assert rows["--proposer"] == "`model` with `--model`, else `tuner`"
    cpu, gpu = a_hardware(), known("nvidia-h200").hardware
    assert rows["--language"] == f"`{Settings().language_on(cpu)}` for a CPU, `{Settings().language_on(gpu)}` for a GPU"


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_links_lead_somewhere_within_the_repository(page):
    for to in links(page):
        assert to.exists(), to
        assert to.is_relative_to(ROOT)


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_paths_that_are_named_exist(page):
    top = {path.name for path in ROOT.iterdir()}
    for path in re.findall(r"(?<![\w./<-])((?:\.ci|[a-z]\w*)/[\w./-]*\w)", DOCUMENTS[page]):
        if path.split("/")[0] in top and "<" not in path and not path.startswith("runs/"):
            assert (ROOT / path).exists() or list(ROOT.glob(f"{path}*")), path


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_no_document_names_a_place_outside_the_repository(page):
    text = DOCUMENTS[page]
    assert "](.." not in text
    for place in re.findall(r"(?<![\w.:/<>\]-])(/\w[\w./-]*)", text):
        assert place in {"/etc/passwd", "/tmp"}, place
    assert not re.findall(r"@[A-Z]+@", text)
