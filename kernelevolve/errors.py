"""Our own failures, and nothing else: a candidate's failure is a value (`schema.Failed`).

::

    KernelevolveError            exit code 1
    |-- UsageError               exit code 2: what was asked for can't be done as asked
    |   |-- SettingsError        an unknown or ill-typed setting
    |   |-- TargetError          a target that is unknown or malformed (file, key, remedy)
    |   |-- UnknownNameError     a name that no catalog lists
    |   `-- NotRecordedError     a replayed run decides otherwise than the recorded one did
    |-- ToolchainError           a compiler or a library that is missing on this machine
    |-- JudgeError               the judge itself failed, or died
    |-- StoreError               the run database is locked, damaged, or its disk is full
    `-- RegistryError            an entry that can't be read, or doesn't match its digests
"""

from typing import ClassVar


class KernelevolveError(Exception):
    """Root of the tree. `remedy` says what the reader can do about it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} ({self.remedy})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.remedy))


def _rebuild(kind: type[KernelevolveError], message: str, remedy: str) -> KernelevolveError:
    """Unpickle: exceptions cross the process boundary between executor and judge."""
    return kind(message, remedy=remedy)


class UsageError(KernelevolveError):
    """What was asked for can't be done as asked."""

    exit_code = 2


class SettingsError(UsageError):
    """An unknown or ill-typed setting."""


class TargetError(UsageError):
    """A target that is unknown or malformed."""


class UnknownNameError(UsageError):
    """A name that no catalog lists."""


class NotRecordedError(UsageError):
    """A replayed run decides otherwise than the recorded one did."""


class ToolchainError(KernelevolveError):
    """A compiler or a library that is missing on this machine."""


class JudgeError(KernelevolveError):
    """The judge itself failed, or died."""


class StoreError(KernelevolveError):
    """The run database is locked, damaged, or its disk is full."""


class RegistryError(KernelevolveError):
    """A registry entry that can't be read, or doesn't match its digests."""
