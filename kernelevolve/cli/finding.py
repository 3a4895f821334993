"""One row of what `doctor` says."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    name: str
    state: Literal["ok", "note", "broken"] = Field(description="broken: nothing works without it")
    found: str
    cost: str = Field("", description="what its absence costs, and the remedy")
