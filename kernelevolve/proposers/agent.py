"""The proposer `agent`: whoever answers by file, a person or a coding agent, in a model's place."""

from typing import ClassVar

from kernelevolve.proposers.model import Model
from kernelevolve.schema import ModelInfo


class Agent(Model):
    """The same questions as to a model, put to one that costs nothing and takes its time."""

    name: ClassVar[str] = "agent"
    MODEL: ClassVar[ModelInfo] = ModelInfo(
        name="agent",
        protocol="mailbox",
        context_tokens=200_000,
        input_usd_per_mtok=0.0,
        output_usd_per_mtok=0.0,
    )

    def __init__(self, config: Model.Config, *, seed: int, models: tuple[ModelInfo, ...] = ()) -> None:
        super().__init__(config, seed=seed, models=models or (self.MODEL,))
