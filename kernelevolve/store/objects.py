"""Records as JSON objects by digest. What many share (sources, target, hardware) is an object of its own."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from kernelevolve.schema import Candidate, Evaluation, Proposal, Record, RunSpec, evaluation_adapter

R = TypeVar("R", bound=Record)
Fetch = Callable[[str], bytes]
"""Bytes of a digest."""

_PARTS: Mapping[type[Record], tuple[str, ...]] = {RunSpec: ("target", "hardware")}
"""Fields that hold a record which is stored apart."""


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
    return zlib.compress(data)


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
    objects: dict[str, bytes] = {}

    def keep(data: bytes) -> str:
        digest = digest_of_bytes(data)
        objects[digest] = data
        return digest

    tree = record.model_dump(mode="json")
    for name in _PARTS.get(type(record), ()):
        tree[name] = keep(_to_json(tree[name]))
    # Members of a family differ in a few numbers and share all their sources.
    if isinstance(record, Proposal | Candidate):
        tree["files"] = {path: keep(text.encode()) for path, text in record.files.items()}
    return Packed(keep(_to_json(tree)), objects)


def unpack(kind: type[R], digest: str, fetch: Fetch) -> R:
    """A record put together again. Raises `ValueError` where it doesn't fit its class any more."""
    tree = json.loads(fetch(digest))
    for name in _PARTS.get(kind, ()):
        tree[name] = json.loads(fetch(tree[name]))
    if kind in (Proposal, Candidate):
        tree["files"] = {path: fetch(source).decode() for path, source in tree["files"].items()}
    return kind.model_validate(tree)


def unpack_evaluation(digest: str, fetch: Fetch) -> Evaluation:
    """The same for an evaluation, passed or failed."""
    return evaluation_adapter.validate_json(fetch(digest))


def _to_json(tree: object) -> bytes:
    # Keys stay in their order: the axes of a target are read in the order in which they were written.
    return json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode()
