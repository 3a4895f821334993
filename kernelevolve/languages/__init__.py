"""Kernel languages: how source becomes something callable."""

from kernelevolve.languages.base import PRELUDE, BuildPlan, Kernel, Language, Loaded, Prelude

__all__ = ["PRELUDE", "BuildPlan", "Kernel", "Language", "Loaded", "Prelude"]
