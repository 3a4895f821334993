"""Random numbers by position in the run."""

import random


class Turns:
    """Gives each turn a generator that depends on the seed and the turn's number alone.

    A generator that lives as long as the run would start over when the run is resumed. This one goes
    on: a resumed run that was told the steps 0 to n - 1 draws what the interrupted one would have drawn next.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._next = 0

    def take(self) -> tuple[int, random.Random]:
        """Number of the turn that begins, and its generator."""
        turn = self._next
        self._next += 1
        return turn, random.Random(f"{self._seed}/{turn}")

    def catch_up(self, step: int) -> None:
        """Note that `step` is over, whoever asked for it."""
        self._next = max(self._next, step + 1)
