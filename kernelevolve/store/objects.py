"""Records as JSON objects by digest. What many share (sources, target, documents) is an object of its own."""

import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from kernelevolve.schema import (
    Answer,
    Brief,
    Candidate,
    Document,
    Evaluation,
    Exchange,
    Hardware,
    ModelRequest,
    Parent,
    Proposal,
    Record,
    Reply,
    RunSpec,
    Seed,
    Target,
    answer_adapter,
    evaluation_adapter,
)

_LEVEL = 1
"""45 % of the time of zlib's usual level and 12 % more space, over the 2,013 objects of eight searches."""

R = TypeVar("R", bound=Record)
Tree = dict[str, Any]
"""A JSON object."""

_RECORDS: Mapping[type[Record], Mapping[str, type[Record]]] = {
    RunSpec: {"target": Target, "hardware": Hardware},
    Brief: {"target": Target, "hardware": Hardware, "parents": Parent, "seeds": Seed, "documents": Document},
    Parent: {"candidate": Candidate},
    Exchange: {"request": ModelRequest},
}
"""Fields that hold a record, or several, each of which is stored apart: many briefs share them."""

_TEXTS: Mapping[type[Record], tuple[str, ...]] = {
    Candidate: ("files",),
    Proposal: ("files", "answer"),
    Seed: ("files",),
    ModelRequest: ("system", "prompt"),
    Reply: ("text",),
}
"""Fields that hold a text, or texts by name, each of which is stored apart: members of a family share all their
sources, and a proposal has the text of the reply that it was read from. An empty text stays where it is."""


class Source(Protocol):
    """Whoever has the objects."""

    def fetch(self, digest: str) -> bytes:
        """The bytes of a digest."""

    def record(self, kind: type[R], digest: str) -> R:
        """The record of a digest."""

    def evaluation(self, digest: str) -> Evaluation:
        """The evaluation of a digest."""


@dataclass(frozen=True)
class Packed:
    """A record ready to be stored: the digest to find it by, and every object that it needs."""

    digest: str
    objects: Mapping[str, bytes]


def digest_of_bytes(data: bytes) -> str:
    """SHA-256 (hexadecimal)."""
    return hashlib.sha256(data).hexdigest()


def compress(data: bytes) -> bytes:
    """What goes into the database."""
    return zlib.compress(data, _LEVEL)


def decompress(digest: str, data: bytes) -> bytes:
    """What went in. Raises `ValueError` where it isn't what the digest says."""
    try:
        inside = zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"object {digest} can't be unpacked: {error}") from error
    if digest_of_bytes(inside) != digest:
        raise ValueError(f"object {digest} doesn't match its digest")
    return inside


def pack(record: Record) -> Packed:
    """A record taken apart."""
    packer = _Packer()
    return Packed(packer.record(record), packer.objects)


class _Packer:
    """Takes records apart, and keeps the parts."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def record(self, record: Record) -> str:
        return self._keep(_to_json(self._tree(record)))

    def _tree(self, record: Record) -> Tree:
        apart: Tree = {}
        for name in _RECORDS.get(type(record), ()):
            held = getattr(record, name)
            apart[name] = [self.record(one) for one in held] if isinstance(held, tuple) else self.record(held)
        for name in _TEXTS.get(type(record), ()):
            held = getattr(record, name)
            if isinstance(held, str):
                apart[name] = held and self._keep(held.encode())
            else:
                apart[name] = {path: self._keep(text.encode()) for path, text in held.items()}
        if isinstance(record, Parent):
            apart["evaluation"] = self.record(record.evaluation)
        if isinstance(record, Exchange):
            apart["answer"] = self._tree(record.answer)
        tree = {**record.model_dump(mode="json", exclude=set(apart)), **apart}
        return {name: tree[name] for name in type(record).model_fields if name in tree}

    def _keep(self, data: bytes) -> str:
        digest = digest_of_bytes(data)
        self.objects[digest] = data
        return digest


def unpack(kind: type[R], digest: str, source: Source) -> R:
    """A record put together again. Raises `ValueError` where it doesn't fit its class any more."""
    return kind.model_validate(_whole(kind, json.loads(source.fetch(digest)), source))


def unpack_evaluation(digest: str, source: Source) -> Evaluation:
    """The same for an evaluation, passed or failed."""
    return evaluation_adapter.validate_json(source.fetch(digest))


def unpack_answer(digest: str, source: Source) -> Answer:
    """The same for what was answered to a question."""
    return answer_adapter.validate_python(_whole_answer(json.loads(source.fetch(digest)), source))


def _whole_answer(tree: Tree, source: Source) -> Tree:
    return _whole(Reply, tree, source) if tree["outcome"] == "replied" else tree


def _whole(kind: type[Record], tree: Tree, source: Source) -> Tree:
    for name, held in _RECORDS.get(kind, {}).items():
        digests = tree[name]
        found = [source.record(held, one) for one in digests] if isinstance(digests, list) else None
        tree[name] = source.record(held, digests) if found is None else found
    for name in _TEXTS.get(kind, ()):
        digests = tree[name]
        if isinstance(digests, str):
            tree[name] = digests and source.fetch(digests).decode()
        else:
            tree[name] = {path: source.fetch(text).decode() for path, text in digests.items()}
    if kind is Parent:
        tree["evaluation"] = source.evaluation(tree["evaluation"])
    if kind is Exchange:
        tree["answer"] = _whole_answer(tree["answer"], source)
    return tree


def _to_json(tree: object) -> bytes:
    # Keys stay in their order: the axes of a target are read in the order in which they were written.
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
