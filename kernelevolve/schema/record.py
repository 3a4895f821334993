"""The base of every record: frozen, closed, JSON in and out, identified by its whole content."""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A frozen pydantic model; an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A changed copy, validated anew: pydantic's own would carry the old digest along."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return type(self).model_validate({**fields, **(update or {})})

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hexadecimal) of the class name and every field, in canonical JSON."""
        return digest_of(type(self).__name__, self.model_dump(mode="json"))


def digest_of(*parts: object) -> str:
    """SHA-256 (hexadecimal) of JSON values, independent of key order."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
