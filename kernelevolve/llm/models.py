"""The table of models: who can be asked by name, and how to name anybody else."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import get_args
from urllib.parse import urlsplit

from pydantic import ValidationError

from kernelevolve.errors import SettingsError, UnknownNameError, UsageError
from kernelevolve.schema import ModelInfo
from kernelevolve.schema.model import Protocol

BUILT_IN = Path(__file__).with_name("models.toml")
_PROTOCOLS = get_args(Protocol)
_ADDRESSED = re.compile(r"(.*?)@(\w+://.*)\Z")
_SPELLING = "write name, protocol:name or protocol:name@base_url"

Table = Mapping[str, Mapping[str, object]]
"""Name of a model to the fields of its `ModelInfo` that a file states."""


def resolve(names: Sequence[str], extra: Path | None = None) -> tuple[ModelInfo, ...]:
    """What is known of the models named, in that order.

    A name is `name` (one of the table), `protocol:name` or `protocol:name@base_url`: with a protocol, any model of
    any service. A base URL means another service than the vendor's, whose prices nobody knows unless a table says
    so for that URL. `extra` is a file with tables `[models.<name>]` that add to the built-in ones and correct them
    field by field.

    Raises `UnknownNameError` for a name that no table has, `UsageError` for two models with the same name or a URL
    that is none, `SettingsError` for a file that doesn't say what it should.
    """
    table = known(extra)
    found = tuple(_resolve(name, table) for name in names)
    for position, info in enumerate(found):
        if any(info.name == other.name for other in found[:position]):
            raise UsageError(
                f"two models of this run are called {info.name!r}",
                remedy="name each model once; a question goes to its model by name",
            )
    return found


def known(extra: Path | None = None) -> Table:
    """The built-in table, with what a file of the user's adds to it or corrects. Raises `SettingsError`."""
    table = dict(_read(BUILT_IN))
    if extra is not None:
        for name, fields in _read(extra).items():
            table[name] = {**table.get(name, {}), **fields}
            _info(name, table[name], extra)  # an error in the file is said even if the model isn't asked
    return table


def _resolve(spelled: str, table: Table) -> ModelInfo:
    protocol, colon, rest = spelled.partition(":")
    if not colon or protocol not in _PROTOCOLS:
        return _named(spelled, table)
    addressed = _ADDRESSED.match(rest)
    name, url = addressed.groups() if addressed else (rest, "")
    if not name:
        raise UsageError(f"{spelled!r} names no model", remedy=_SPELLING)
    if url:
        _check_url(spelled, url)
    listed = _info(name, table[name]) if name in table else None
    if listed and _same_service(listed, protocol, url or None):
        return listed.model_copy(update={"protocol": protocol})
    return ModelInfo(name=name, protocol=protocol, base_url=url or None)


def _named(name: str, table: Table) -> ModelInfo:
    if name in table:
        return _info(name, table[name])
    close = get_close_matches(name, table, n=3)
    meant = f"did you mean {' or '.join(close)}? " if close else ""
    raise UnknownNameError(
        f"no model is called {name!r}",
        remedy=f"{meant}For any other model say how it is spoken to, as in openai-chat:{name}@http://localhost:8000/v1 "
        f"(protocols: {', '.join(_PROTOCOLS)}), or add a table [models.{name!r}] to your models_file",
    )


def _same_service(listed: ModelInfo, protocol: str, url: str | None) -> bool:
    """Whether what the table says holds for that protocol at that address."""
    family = listed.protocol.partition("-")[0]
    return protocol.partition("-")[0] == family and url == listed.base_url


def _check_url(spelled: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} in {spelled!r} is no address of a server", remedy="write http://host:port/v1")
    if parts.username or parts.password:
        raise UsageError(
            f"the address of {spelled.partition('@')[0]!r} carries a password",
            remedy="a run's record keeps addresses: put the key into OPENAI_API_KEY or ANTHROPIC_API_KEY",
        )


def _read(file: Path) -> Table:
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"the models file {file} can't be read: {error.strerror}", remedy=_FORM) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}", remedy=_FORM) from error
    models = content.pop("models", {})
    if content:
        raise SettingsError(f"{file}, key {next(iter(content))}: there is no such key", remedy=_FORM)
    if not isinstance(models, dict) or not all(isinstance(fields, dict) for fields in models.values()):
        raise SettingsError(f"{file}, key models: a table of tables was expected", remedy=_FORM)
    return models


def _info(name: str, fields: Mapping[str, object], file: Path = BUILT_IN) -> ModelInfo:
    try:
        info = ModelInfo.model_validate({"name": name, **fields})
    except ValidationError as error:
        misspelt = [found for found in error.errors() if found["type"] == "extra_forbidden"]
        first = (misspelt or error.errors())[0]
        key = str(first["loc"][0])
        remedy = f"the keys are: {', '.join(k for k in ModelInfo.model_fields if k != 'name')}"
        raise SettingsError(f"{file}, models.{name!r}, key {key}: {first['msg'].lower()}", remedy=remedy) from error
    if info.name != name:
        raise SettingsError(
            f"{file}, models.{name!r}: the table's name is the model's name", remedy="leave the key name out"
        )
    if info.base_url:
        _check_url(f"{info.protocol}:{name}@{info.base_url}", info.base_url)
    return info


_FORM = 'write tables such as: [models."qwen3-coder"] with protocol = "openai-chat" and base_url = "http://..."'
