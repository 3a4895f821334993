"""kernelevolve finds fast kernels by search, certifies them and serves the winners."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernelevolve.runtime import Runtime

__all__ = ["Runtime", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the serving side on first use: the command line must start without torch."""
    if name == "Runtime":
        from kernelevolve.runtime import Runtime

        return Runtime
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
