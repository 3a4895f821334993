"""Names of plug-ins: built-ins are listed here and imported on demand, others come through entry points."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from kernelevolve.errors import UnknownNameError


@dataclass(frozen=True)
class Catalog:
    """One kind of plug-in. Entry points of the group `kernelevolve.<kind>` extend it."""

    kind: str
    builtins: Mapping[str, str]

    def names(self) -> tuple[str, ...]:
        """Every name that can be loaded, sorted."""
        return tuple(sorted({*self.builtins, *(e.name for e in entry_points(group=f"kernelevolve.{self.kind}"))}))

    def load(self, name: str) -> Any:
        """The class behind a name. Raises `UnknownNameError`."""
        if path := self.builtins.get(name):
            module, _, attribute = path.partition(":")
            return getattr(import_module(module), attribute)
        for entry in entry_points(group=f"kernelevolve.{self.kind}"):
            if entry.name == name:
                return entry.load()
        raise UnknownNameError(
            f"no {_singular(self.kind)} is called {name!r}",
            remedy=f"choose one of: {', '.join(self.names())}",
        )


def _singular(kind: str) -> str:
    return f"{kind[:-3]}y" if kind.endswith("ies") else kind[:-1]


LANGUAGES = Catalog(
    "languages",
    {
        "cpp": "kernelevolve.languages.cpp:Cpp",
        "cuda": "kernelevolve.languages.cuda:Cuda",
        "triton": "kernelevolve.languages.triton:Triton",
    },
)
EXECUTORS = Catalog(
    "executors",
    {
        "local": "kernelevolve.executors.local:LocalExecutor",
        "triage": "kernelevolve.executors.triage:TriageExecutor",
    },
)
PROPOSERS = Catalog(
    "proposers",
    {
        "agent": "kernelevolve.proposers.agent:Agent",
        "model": "kernelevolve.proposers.model:Model",
        "tuner": "kernelevolve.proposers.tuner:Tuner",
    },
)
POLICIES = Catalog(
    "policies",
    {
        "adaptive": "kernelevolve.policies.adaptive:Adaptive",
        "best-of-n": "kernelevolve.policies.best_of_n:BestOfN",
        "greedy": "kernelevolve.policies.greedy:Greedy",
        "islands": "kernelevolve.policies.islands:Islands",
        "map-elites": "kernelevolve.policies.map_elites:MapElites",
        "random": "kernelevolve.policies.random:Random",
        "tree": "kernelevolve.policies.tree:Tree",
    },
)
