"""Kernel languages: how source becomes something callable."""

from kernelevolve.catalog import LANGUAGES
from kernelevolve.errors import UsageError
from kernelevolve.languages.base import PRELUDE, BuildPlan, Kernel, Language, Loaded, Prelude
from kernelevolve.schema import Hardware

__all__ = ["PRELUDE", "BuildPlan", "Kernel", "Language", "Loaded", "Prelude", "language_for"]


def language_for(name: str, hardware: Hardware) -> Language:
    """The language of that name, if its kernels run on that hardware. Raises `UsageError`."""
    language: Language = LANGUAGES.load(name)()
    if hardware.device not in language.devices:
        raise UsageError(
            f"{name} kernels don't run on {hardware.key}",
            remedy="choose another --language; kernelevolve triage checks GPU kernels on a machine without one",
        )
    return language
