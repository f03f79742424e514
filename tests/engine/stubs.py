"""Small models in plain torch, each with one property that decides what the engine may do with it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from frostline.engine.batch_inputs import Call

WIDTH, VOCAB = 8, 30


class Attention(nn.Module):
    """Gives every token the mean of the row's real tokens, and of no others."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        weights = mask[..., None].to(hidden.dtype)
        mean: Tensor = (self.project(hidden) * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)
        return mean.expand_as(hidden)


class Block(nn.Module):
    """A layer of attention and a feed-forward network."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = Attention()
        self.dense = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        mixed: Tensor = hidden + self.attention(hidden, mask)
        output: Tensor = mixed + self.dense(mixed).tanh()
        return output


class Classifier(nn.Module):
    """Embeddings, three layers, the mean of the real tokens, a head."""

    base_model_prefix = "body"

    def __init__(self, block: type[nn.Module] = Block, layers: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(pad_token_id=0, to_dict=dict)
        self.body = nn.Module()
        self.body.embeddings = nn.Embedding(VOCAB, WIDTH)
        self.body.layers = nn.ModuleList(block() for _ in range(layers))
        self.classifier = nn.Linear(WIDTH, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:
        hidden = self.embedded(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask)
        return SimpleNamespace(logits=self.classifier(self.pooled(hidden, attention_mask)))

    @property
    def layers(self) -> nn.ModuleList:
        layers = self.body.layers
        assert isinstance(layers, nn.ModuleList)
        return layers

    def embedded(self, input_ids: Tensor) -> Tensor:
        """(rows, length) to (rows, length, width)."""
        embeddings = self.body.embeddings
        assert isinstance(embeddings, nn.Embedding)
        embedded: Tensor = embeddings(input_ids)
        return embedded

    def pooled(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """(rows, length, width) to (rows, width)."""
        weights = attention_mask[..., None].to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1)


def padded(lengths: Sequence[int], *, seed: int = 0, extra: int = 0, side: str = "right") -> dict[str, Tensor]:
    """Ids and mask of texts of some lengths, (rows, length)."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths) + extra
    mask = (torch.arange(width) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, VOCAB, mask.shape, generator=generator) * mask
    batch = {"input_ids": ids, "attention_mask": mask}
    return batch if side == "right" else {name: value.flip(1) for name, value in batch.items()}


def call_of(batch: Mapping[str, Tensor]) -> Call:
    """The same as the engine reads it."""
    from frostline.engine.batch_inputs import Call
    from frostline.engine.token_layout import TokenLayout

    return Call.of(dict(batch), TokenLayout(batch["attention_mask"].bool()))
