"""An operation as its users call it: a certified kernel where there is one, the reference everywhere else."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import torch

from kernelevolve.errors import UsageError
from kernelevolve.languages.base import Kernel
from kernelevolve.registry.match import NoMatch, match
from kernelevolve.runtime.dispatch import ALIGNMENT, PLAIN, RAISED, Plan, compile_call, key
from kernelevolve.runtime.kernels import Kernels, Unusable
from kernelevolve.runtime.signature import Point, Signature
from kernelevolve.schema import Entry, Hardware, Target

log = logging.getLogger(__name__)

Reason = Literal[
    "no_entry", "hardware", "dtype", "shape",
    "registry", "damaged", "target_changed", "toolchain", "build_failed", "load_failed",
    "arguments", "scalar", "device", "not_contiguous", "unaligned", "grad", "untracked_constant", "raised",
]  # fmt: skip
"""Why the reference answered: nothing is certified for the machine, the element types or the shape; what is
certified can't be used; or the arguments of the call don't allow it."""

_OURS: tuple[Reason, ...] = (
    "registry", "damaged", "target_changed", "toolchain", "build_failed", "load_failed", "raised",
)  # fmt: skip
"""Reasons that somebody should look into."""

_MOST_PLANS = 4096
"""Shapes to remember; then it starts over, so that ever-changing shapes don't fill the memory."""


@dataclass(frozen=True)
class Stats:
    """What became of the calls so far."""

    hits: int
    """calls that a certified kernel answered"""
    misses: Mapping[Reason, int]
    """calls that the reference answered, by reason"""

    @property
    def fallbacks(self) -> int:
        """Calls that the reference answered."""
        return sum(self.misses.values())


@dataclass(frozen=True)
class Shelf:
    """What the registry has for one operation."""

    entries: tuple[Entry, ...]
    problem: tuple[Literal["registry", "damaged"], str] | None = None
    """why there may be less than was published"""


@dataclass(frozen=True, slots=True)
class _Miss:
    """Why the reference answers."""

    reason: Reason
    message: str
    dtypes: tuple[torch.dtype, ...] = ()
    """of the outputs, where they are known"""


class Op:
    """Call it as `op(*inputs)` or, into tensors of the caller's, `op(*inputs, out=...)`.

    Inputs and outputs are those of the target, in its order; inputs may be named. One output is returned as a
    tensor, several as a tuple. `out` (a tensor, or a tuple of them) must not share memory with an input.
    Safe to call from several threads; while a kernel is being built, calls of new shapes wait for it.
    """

    __slots__ = (
        "_counts", "_deciding", "_find", "_hardware", "_hits", "_kernels", "_lock", "_plans", "_reference",
        "_shelf", "_signature", "_target", "_unusable",
    )  # fmt: skip

    def __init__(self, target: Target, shelf: Shelf, hardware: Hardware, kernels: Kernels) -> None:
        self._target = target
        self._signature = Signature(target)
        self._reference = _load_reference(target)
        self._hardware = hardware
        self._kernels = kernels
        self._plans: dict[object, Plan | _Miss] = {}
        self._find = self._plans.get
        self._hits = 0
        self._counts: dict[Reason, int] = {}
        self._lock = threading.Lock()
        self._deciding = threading.Lock()
        changed = _Miss("target_changed", "the target was edited since the kernel was certified")
        current = tuple(e for e in shelf.entries if e.target_digest == target.digest)
        self._unusable = [(e, changed) for e in shelf.entries if e.target_digest != target.digest]
        self._shelf = Shelf(current, shelf.problem)

    if TYPE_CHECKING:  # `make_op` writes the method out for each operation

        def __call__(self, *inputs: Any, out: Any = None, **named: Any) -> Any:
            """Answer: the outputs, or `out` with the answer in it."""

    def __repr__(self) -> str:
        return f"<op {self._target.name} on {self._hardware.key}>"

    @property
    def stats(self) -> Stats:
        """What became of the calls so far."""
        with self._lock:
            return Stats(self._hits, MappingProxyType(self._counts.copy()))

    def _slow(self, args: tuple[Any, ...], out: Any, plan: Plan | _Miss | None, problem: Exception | None) -> Any:
        """Answer what isn't a plain hit: `plan` is what the quick path had found, `problem` what it met."""
        if plan is None:
            plan = self._odd(args) or self._decided(args)
        if isinstance(plan, Plan):
            plan = self._refusal(args, plan) or plan
        if isinstance(plan, Plan) and problem is not None and out is None:
            plan = self._blame(args, problem, plan)
        if isinstance(plan, Plan):
            try:
                results = self._run(plan, args)
            except RAISED as error:
                plan = self._blame(args, error, plan)
        if isinstance(plan, _Miss):
            results = self._fall_back(plan, args)
        if out is not None:
            return _deliver(self._target, results, out)
        return results[0] if len(results) == 1 else results

    def _odd(self, args: tuple[Any, ...]) -> _Miss | None:
        """What keeps arguments from being looked up at all."""
        for given, arg in zip(self._target.inputs, args, strict=True):
            if given.shape is None and type(arg) is not int:
                return _Miss("scalar", f"{given.name} is of type {type(arg).__name__}, not int")
            if given.shape is not None and (type(arg) not in PLAIN or arg.layout != torch.strided):
                return _Miss("arguments", f"{given.name} is no plain tensor")
        return None

    def _refusal(self, args: tuple[Any, ...], plan: Plan) -> _Miss | None:
        """What keeps arguments of the right shapes and types from the kernel."""
        if odd := self._odd(args):
            return _Miss(odd.reason, odd.message, plan.dtypes)
        tensors = [a for a in args if isinstance(a, torch.Tensor)]
        here = self._device
        if any(t.device != here for t in tensors) or (here.type == "cuda" and torch.cuda.current_device()):
            message = f"an input is not on {here}, or that is not the current device"
            return _Miss("device", message, plan.dtypes)
        if not all(t.is_contiguous() and not t.is_neg() for t in tensors):
            return _Miss("not_contiguous", "an input is not contiguous", plan.dtypes)
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            return _Miss("grad", "an input requires a gradient", plan.dtypes)
        try:
            if any(t.data_ptr() % ALIGNMENT for t in tensors):
                message = f"an input does not begin at a multiple of {ALIGNMENT} bytes"
                return _Miss("unaligned", message, plan.dtypes)
        except RuntimeError as error:  # within a transform of torch.func
            return _Miss("arguments", f"an input has no memory of its own: {error}", plan.dtypes)
        return None

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu") if self._hardware.device == "cpu" else torch.device("cuda", 0)

    def _decided(self, args: tuple[Any, ...]) -> Plan | _Miss:
        """How to answer arguments of these shapes and types; decided once."""
        place = key(self._target.inputs, args)
        with self._deciding:
            known = self._plans.get(place)
            if known is None:
                if len(self._plans) >= _MOST_PLANS:
                    self._plans.clear()
                known = self._plans[place] = self._decide(args)
            return known

    def _decide(self, args: tuple[Any, ...]) -> Plan | _Miss:
        point = self._signature.point(args)
        if point is None:
            return _Miss("arguments", "the inputs don't have the shapes or the types of the target")
        while True:
            broken = {entry.digest for entry, _ in self._unusable}
            usable = [entry for entry in self._shelf.entries if entry.digest not in broken]
            found = match(usable, self._hardware, point.axes, point.dtypes)
            if isinstance(found, NoMatch):
                return self._no_match(found, point)
            kernel = self._kernels.get(found.entry)
            if not isinstance(kernel, Unusable):
                break
            self._unusable.append((found.entry, _Miss(kernel.reason, kernel.message)))
        outputs = zip(point.shapes, point.output_dtypes, strict=True)
        try:
            templates = tuple(_template(shape, dtype, self._device) for shape, dtype in outputs)
        except RuntimeError as error:  # within a transform of torch.func
            return _Miss("arguments", f"no output can be allocated: {error}", point.output_dtypes)
        return Plan(
            run=kernel.run,
            packs=kernel.packs,
            form=kernel.packs.form(self._constants(args)) if kernel.packs else 0,
            templates=templates,
            shapes=point.shapes,
            dtypes=point.output_dtypes,
            single=any(isinstance(a, torch.Tensor) and a.numel() == 1 for a in args),
        )

    def _no_match(self, found: NoMatch, point: Point) -> _Miss:
        """Name the deeper reason, where an entry would have served if it could be used."""
        for entry, why in self._unusable:
            if not isinstance(match([entry], self._hardware, point.axes, point.dtypes), NoMatch):
                return _Miss(why.reason, why.message, point.output_dtypes)
        if self._shelf.problem is not None:
            reason, message = self._shelf.problem
            return _Miss(reason, message, point.output_dtypes)
        return _Miss(found.reason, found.message, point.output_dtypes)

    def _constants(self, args: tuple[Any, ...]) -> list[torch.Tensor]:
        return [a for i, a in zip(self._target.inputs, args, strict=True) if i.constant]

    def _run(self, plan: Plan, args: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
        """A hit, without the haste."""
        outputs = tuple(torch.empty_like(template) for template in plan.templates)
        packed = () if plan.packs is None else (plan.packs.get(plan.form, self._constants(args)),)
        plan.run(*args, *packed, *outputs)
        self._hits += 1
        return outputs

    def _blame(self, args: tuple[Any, ...], error: Exception, plan: Plan) -> _Miss:
        if plan.packs is not None and any(c.is_inference() for c in self._constants(args)):
            message = "changes of a constant made under torch.inference_mode can't be noticed"
            return _Miss("untracked_constant", message, plan.dtypes)
        return _Miss("raised", f"the kernel raised {type(error).__name__}: {error}", plan.dtypes)

    def _fall_back(self, miss: _Miss, args: tuple[Any, ...]) -> tuple[torch.Tensor, ...]:
        reason = miss.reason
        with self._lock:
            count = self._counts.get(reason, 0)
            self._counts[reason] = count + 1
        if not count:
            level = logging.WARNING if reason in _OURS else logging.INFO
            log.log(level, "%s: the reference answers (%s): %s", self._target.name, reason, miss.message)
        answer = self._reference(*args)
        results = (answer,) if isinstance(answer, torch.Tensor) else tuple(answer)
        if miss.dtypes and miss.dtypes != tuple([r.dtype for r in results]):
            return tuple(r.to(dtype) for r, dtype in zip(results, miss.dtypes, strict=True))
        return results


def make_op(target: Target, shelf: Shelf, hardware: Hardware, kernels: Kernels) -> Op:
    """The operation of a target. Raises `UsageError` where its axes don't follow from its inputs."""
    members = {"__slots__": (), "__call__": compile_call(target, hardware.device)}
    own: type[Op] = type("Op", (Op,), members)
    return own(target, shelf, hardware, kernels)


def _template(shape: torch.Size, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """`empty_like` of this is the quickest way to a fresh contiguous tensor; only its description is kept."""
    with torch.inference_mode(False):
        template = torch.empty(shape, dtype=dtype, device=device)
        template.untyped_storage().resize_(0)
    return template


def _deliver(target: Target, results: Sequence[torch.Tensor], out: Any) -> Any:
    """Copy the results into the caller's tensors."""
    given = tuple(out) if isinstance(out, tuple | list) else (out,)
    expected = ", ".join(
        f"{o.name} {tuple(r.shape)} {str(r.dtype).removeprefix('torch.')}"
        for o, r in zip(target.outputs, results, strict=True)
    )
    fits = len(given) == len(results) and all(
        isinstance(g, torch.Tensor) and g.shape == r.shape and g.dtype == r.dtype
        for g, r in zip(given, results, strict=True)
    )
    if not fits:
        raise UsageError(f"{target.name}: out doesn't fit the outputs", remedy=f"pass {expected}")
    for tensor, result in zip(given, results, strict=True):
        tensor.copy_(result)
    return out


def _load_reference(target: Target) -> Kernel:
    """The function `reference` of the target's own, trusted file."""
    names: dict[str, Any] = {"__name__": f"kernelevolve_reference_{target.name}"}
    exec(compile(target.files["reference.py"], f"targets/{target.name}/reference.py", "exec"), names)
    reference: Kernel = names["reference"]
    return reference
