"""What can be set, and the only defaults: a settings file < the environment < the command line."""

import os
import tomllib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, ClassVar

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from kernelevolve.errors import SettingsError
from kernelevolve.schema import Hardware, Sandboxing

PREFIX = "KERNELEVOLVE_"
FILE = "kernelevolve.toml"
MOST_WORKERS = 4
"""Judges started without being asked for: they take turns to time, so more of them only cost memory."""
GPU_WORKERS = 2
"""The same for a GPU, whose memory holds every judge's inputs: one times while the other compiles and checks."""
GPU_THREADS = 4
"""CPU threads of a judge whose kernels run on a GPU."""


class Settings(BaseSettings):
    """Everything that can be set. `load` reads the sources; the constructor reads none of them."""

    evals: int = Field(60, ge=1, description="total budget of evaluations of a search")
    minutes: float | None = Field(None, gt=0, description="wall-clock budget of one sitting; None means none")
    seed: int = Field(0, ge=0, description="seed of proposer and policy")
    workers: int | None = Field(
        None, ge=1, description=f"evaluations under way at once; None means one a core, at most {MOST_WORKERS}"
    )
    threads: int | None = Field(None, ge=1, description="threads that a kernel may use; None means all cores")
    hardware: str | None = Field(None, description="key or alias of a device; None means this machine's CPU")
    language: str | None = Field(None, description="kernel language; None means cpp for a CPU and triton for a GPU")
    proposer: str | None = Field(
        None, description="name of who writes candidates; None means model where models are named, else tuner"
    )
    policy: str = Field("adaptive", description="name of the policy: which parents breed next")
    model: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="list of models to ask, for a proposer that asks; in the environment with commas between"
    )
    models_file: Path | None = Field(None, description="file that adds models to the table, or corrects it")
    lanes: int = Field(4, ge=1, description="questions to models under way at once")
    reply_seconds: float | None = Field(
        None, gt=0, description="longest wait for a model's reply in seconds, tries included; None means 600"
    )
    usd: float | None = Field(None, gt=0, description="budget of US dollars for model calls; None means none")
    tokens: int | None = Field(None, ge=1, description="budget of input and output tokens; None means none")
    device_seconds: float | None = Field(
        None, gt=0, description="budget of time that evaluations take, in seconds; None means none"
    )
    target_speedup: float | None = Field(None, gt=0, description="speed-up at which the search may end")
    target_roofline: float | None = Field(
        None, gt=0, le=1, description="share of the roofline at which the search may end"
    )
    stall: int | None = Field(None, ge=1, description="evaluations without a new best after which the search may end")
    knowledge: bool = Field(True, description="switch for documents in briefs")
    diagnostics: bool = Field(True, description="switch for what the judge found, in briefs")
    skills: float = Field(0.5, ge=0, le=1, description="share of briefs that may carry what earlier runs learned")
    tuning: float | None = Field(
        None, ge=0, le=1, description="share of briefs that the tuner answers beside a model; None: the proposer's own"
    )
    require_sandbox: Sandboxing = Field(
        "any", description="full: refuse to run candidates where a wall is missing; any: use the strongest there are"
    )
    registry: Path = Field(
        default_factory=lambda: user_data_path("kernelevolve") / "registry", description="certified kernels"
    )
    runs: Path = Field(Path("runs"), description="folder of the run database and the reports")
    cache: Path = Field(
        default_factory=lambda: user_cache_path("kernelevolve"),
        description="builds, ceilings, the timing lock",
    )
    targets: Path | None = Field(None, description="folder of the targets; None means ./targets, else the bundled ones")
    prompts: Path | None = Field(
        None, description="folder of prompts and knowledge; None means ./prompts, else the bundled one"
    )

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    @field_validator("model", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value

    def workers_on(self, machine: Hardware) -> int:
        """Judges to start for a device of this machine."""
        return self.workers or (min(machine.cores, MOST_WORKERS) if machine.device == "cpu" else GPU_WORKERS)

    def threads_on(self, machine: Hardware) -> int:
        """CPU threads for kernels (on a CPU) and for what judges do themselves."""
        return self.threads or (machine.cores if machine.device == "cpu" else GPU_THREADS)

    def language_on(self, machine: Hardware) -> str:
        """The kernel language for a device."""
        return self.language or ("cpp" if machine.device == "cpu" else "triton")

    @property
    def chosen_proposer(self) -> str:
        """Who writes candidates."""
        return self.proposer or ("model" if self.model else "tuner")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read nothing behind the caller's back: `load` merges the sources."""
        return (init_settings,)


def load(file: Path | None = None, **command_line: object) -> Settings:
    """Read the settings. A None on the command line means "not given".

    The file is `file`, else `KERNELEVOLVE_SETTINGS`, else `kernelevolve.toml` in the current folder where
    there is one; paths in it are relative to the current folder. Raises `SettingsError`, naming the source.
    """
    values: dict[str, object] = {}
    sources: dict[str, str] = {}
    path = _settings_file(file)
    for found, source in (
        (_from_file(path) if path else {}, f"{path}, key {{name}}"),
        (_from_environment(), f"environment variable {PREFIX}{{upper}}"),
        ({k: v for k, v in command_line.items() if v is not None}, "option --{dashed}"),
    ):
        for name, value in found.items():
            values[name] = value
            sources[name] = source.format(name=name, upper=name.upper(), dashed=name.replace("_", "-"))
            if name not in Settings.model_fields:
                raise _unknown(sources[name], name, {n: n for n in Settings.model_fields})
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise SettingsError(
            f"{sources[name]}: {first['msg'].lower()}, but it is {first['input']!r}",
            remedy=f"{name} is the {Settings.model_fields[name].description}",
        ) from error


def environment(file: Path | None = None, **command_line: object) -> dict[str, str]:
    """This process's environment, with what `load` is given in it too: for a command that is to go by the same."""
    given = {
        name.upper(): str(value) for name, value in {"settings": file, **command_line}.items() if value is not None
    }
    return {**os.environ, **{f"{PREFIX}{name}": value for name, value in given.items()}}


def _settings_file(chosen: Path | None) -> Path | None:
    named = os.environ.get(f"{PREFIX}SETTINGS")
    if chosen is None and named is None:
        return Path(FILE) if Path(FILE).is_file() else None
    path = chosen or Path(named or "")
    if not path.is_file():
        source = "option --settings" if chosen else f"environment variable {PREFIX}SETTINGS"
        raise SettingsError(
            f"{source}: there is no file {str(path)!r}", remedy=f"create it, or leave it out to use {FILE}"
        )
    return path


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not TOML: {error}", remedy="write lines such as: evals = 60") from error


def _from_environment() -> Mapping[str, object]:
    known = {f"{PREFIX}{name.upper()}": name for name in Settings.model_fields} | {f"{PREFIX}SETTINGS": "settings"}
    for variable in os.environ:
        if variable.startswith(PREFIX) and variable not in known:
            raise _unknown(f"environment variable {variable}", variable, known)
    return EnvSettingsSource(Settings)()


def _unknown(source: str, name: str, known: Mapping[str, str]) -> SettingsError:
    close = get_close_matches(name, known, n=3)
    return SettingsError(
        f"{source}: there is no such setting",
        remedy=f"did you mean {' or '.join(close)}?" if close else f"the settings are: {', '.join(known)}",
    )
