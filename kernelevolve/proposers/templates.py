"""The templates of the folder of prompts."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables

from kernelevolve.errors import UsageError


class Templates:
    """Renders templates, or single blocks of them. An unknown variable is an error, and never an empty place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._loader = FileSystemLoader(folder)
        self._environment = Environment(
            loader=self._loader,
            auto_reload=False,  # a run asks by the templates that it began with
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters |= {"us": _microseconds, "count": _count, "words": _words, "sentence": _sentence}

    def check(self, name: str, known: Iterable[str]) -> None:
        """Read a template, and look for variables that it can't have in any branch. Raises `UsageError`."""
        known = sorted(known)
        try:
            source = self._loader.get_source(self._environment, name)[0]
            used = find_undeclared_variables(self._environment.parse(source, name))
        except (TemplateError, UnicodeDecodeError) as error:
            raise self._problem(name, error) from error
        if unknown := sorted(used.difference(known)):
            raise UsageError(
                f"{self._folder / name}: unknown variable {unknown[0]!r}",
                remedy=f"the variables are: {', '.join(known)}",
            )

    def blocks(self, name: str) -> tuple[str, ...]:
        """Names of a template's blocks, in their order. Raises `UsageError`."""
        try:
            return tuple(self._environment.get_template(name).blocks)
        except TemplateError as error:
            raise self._problem(name, error) from error

    def render(self, name: str, variables: Mapping[str, object], block: str | None = None) -> str:
        """A template, or one of its blocks, without blank space around it. Raises `UsageError`."""
        try:
            template = self._environment.get_template(name)
            if block is None:
                return template.render(variables).strip()
            return "".join(template.blocks[block](template.new_context(dict(variables)))).strip()
        except TemplateError as error:
            raise self._problem(name, error) from error

    def _problem(self, name: str, error: TemplateError | UnicodeDecodeError) -> UsageError:
        if isinstance(error, TemplateNotFound):
            return UsageError(
                f"there is no template {self._folder / str(error.name)}",
                remedy="write it, or point --prompts at a folder that has it",
            )
        if isinstance(error, TemplateSyntaxError):
            return UsageError(
                f"{self._folder / (error.name or name)}:{error.lineno}: {error.message}", remedy="mend the template"
            )
        place = _place(error.__traceback__, self._folder) or str(self._folder / name)
        return UsageError(f"{place}: {error}", remedy="use only what the template's own comment lists")


def _place(trace: TracebackType | None, folder: Path) -> str | None:
    """File and line of the innermost template in a traceback."""
    found = None
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if Path(file).parent == folder:
            found = f"{file}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def _microseconds(time_us: float) -> str:
    return f"{time_us:.4g} us"


def _count(number: float) -> str:
    """A large number in the unit that suits it."""
    for unit in ("", " thousand", " million"):
        if number < 1000:
            return f"{number:.4g}{unit}"
        number /= 1000
    return f"{number:.4g} * 10^9"


def _words(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items) or "none"


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a name, and a full stop, whether or not its author gave it them."""
    first, _, rest = text.strip().rstrip(".").partition(" ")
    return f"{first.capitalize() if first.isalpha() and first.islower() else first} {rest}".strip() + "."
