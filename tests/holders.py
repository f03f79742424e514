"""Stand-ins for modules of other libraries that hold one model."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class LightningModule(nn.Module):
    """As Lightning's: its forward is that of torch, which there is none; it trains by ``training_step``."""

    def forward(self, *arguments: Any, **options: Any) -> Any:
        return super().forward(*arguments, **options)

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        raise NotImplementedError


class Lit(LightningModule):
    """Holds one model, and a loss without parameters, as people write it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0]))
        self.model = model

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss: torch.Tensor = self.model(**batch).loss
        return loss


class LitOfParts(LightningModule):
    """Holds a backbone and a head of its own, and has no forward."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(16, 2)


class SentenceEncoder(nn.Sequential):
    """As sentence-transformers has it: modules that hand on a dictionary, the first of which holds the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(Transformer(model), Pooling())


class Transformer(nn.Module):
    """Runs the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.auto_model = model

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return features | {"tokens": self.auto_model(features["input_ids"])[0]}


class Pooling(nn.Module):
    """Takes the mean of the tokens."""

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return features | {"embedding": features["tokens"].mean(dim=1)}
