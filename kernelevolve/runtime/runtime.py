"""Certified kernels for the machine that this process stands on."""

import threading
from pathlib import Path

from kernelevolve import hardware as machine
from kernelevolve import resources, targets
from kernelevolve.errors import RegistryError
from kernelevolve.registry.base import Registry
from kernelevolve.registry.local import LocalRegistry
from kernelevolve.runtime.kernels import Kernels
from kernelevolve.runtime.op import Op, Shelf, make_op
from kernelevolve.schema import Hardware


class Runtime:
    """Serves operations: `Runtime().op("topk")(x, 64)`.

    `registry` is a folder or anything with the methods of `Registry`; `hardware` the device that tensors lie on, by
    key or alias (nvidia-h200), this machine's CPU if left out; `targets` the folder of target definitions; `cache_dir`
    keeps built kernels. What is left out comes from the settings. Raises `UnknownNameError` for a device that isn't
    here.
    """

    def __init__(
        self,
        registry: Path | str | Registry | None = None,
        *,
        hardware: Hardware | str | None = None,
        targets: Path | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        if registry is None or targets is None or cache_dir is None:
            from kernelevolve import settings

            chosen = settings.load()
            registry = chosen.registry if registry is None else registry
            targets = targets or resources.targets_dir(chosen.targets)
            cache_dir = cache_dir or chosen.cache
        self.hardware = hardware if isinstance(hardware, Hardware) else machine.find(hardware)
        self.registry: Registry = LocalRegistry(registry) if isinstance(registry, str | Path) else registry
        self._targets = targets
        self._kernels = Kernels(self.hardware, cache_dir)
        self._ops: dict[str, Op] = {}
        self._lock = threading.Lock()

    def op(self, name: str) -> Op:
        """The operation of that target; the same one each time.

        The registry is read on the first call, kernels are built on first use. Raises `TargetError` for an
        unknown or malformed target, `UsageError` for one whose axes don't follow from its inputs.
        """
        with self._lock:
            if name not in self._ops:
                target = targets.load(name, self._targets)
                self._ops[name] = make_op(target, self._shelf(name), self.hardware, self._kernels)
            return self._ops[name]

    def _shelf(self, name: str) -> Shelf:
        """What the registry has; a registry that can't be read leaves the reference to answer."""
        try:
            entries = tuple(stored.entry for stored in self.registry.entries(name))
            damaged = [
                finding
                for finding in self.registry.verify(name)
                if not finding.ok and finding.path.parent.name in (self.hardware.key, *self.hardware.aliases)
            ]
        except RegistryError as error:
            return Shelf((), ("registry", str(error)))
        return Shelf(entries, ("damaged", damaged[0].problem) if damaged else None)
