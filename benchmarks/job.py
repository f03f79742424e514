"""What is trained in a row, on how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Job:
    """The work of a row, the same for both sides.

    Attributes:
        top: How many of the highest layers train, beside pooler and head; None if everything trains.
        epochs: How often the suffix sees each row; 0 if only the prefix runs.
        rank: The rank of LoRA, which trains in those layers in the place of their weights and the pooler; or None.
        rows: How many texts, from the training table.
        model: The demo's MiniLM, or a randomly initialised BERT-base with its tokenizer.
        learning_rate: The peak; it falls linearly to 0.
        batch: Rows per step.
        bf16: Whether to compute in mixed precision.
        cuda: Whether to compute on the GPU.
        fill: Texts are joined until they fill so many tokens; None if they stay as they are.
    """

    top: int | None
    epochs: int
    rank: int | None = None
    rows: int = 2_000
    model: Literal["minilm", "base"] = "minilm"
    learning_rate: float = 5e-5
    batch: int = 16
    bf16: bool = False
    cuda: bool = False
    fill: int | None = None

    @property
    def train_only(self) -> str | None:
        """The same as a selector of Frostline."""
        if self.rank is not None:
            return "adapters"
        if self.top is None:
            return None
        return f"layers[-{self.top}:], pooler, head" if self.top else "pooler, head"
