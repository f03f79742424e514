"""The rows of a run, as batches meet them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of a run, as batches meet them.

    Attributes:
        rows: How many there are.
        tokens: Their tokens, padding left out.
        squares: The sum of their squared numbers of tokens, which is what attention grows by.
        padded: Positions of an epoch's batches, each padded to its longest row.
        largest: Tokens of the largest batch.
        largest_padded: Its positions, padding included.
        batch_size: Rows per step.
        steps: Steps of an epoch.
        counts: How many different numbers of tokens the packed batches have.
    """

    rows: int
    tokens: int
    squares: int
    padded: int
    largest: int
    largest_padded: int
    batch_size: int
    steps: int
    counts: int

    @property
    def met(self) -> float:
        """Mean tokens of a row, as a token meets them."""
        return self.squares / self.tokens
