"""A small frozen model, and whether the engine answers as it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

import frostline as fl
from frostline.engine.engine import Engine
from frostline.engine.settings import EngineSettings
from frostline.store.place import StorePlace
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn
    from transformers import PreTrainedModel

    from frostline.store.spec import StoreKey, StreamSpec
    from frostline.store.store import Store

FROZEN = "embeddings, layers[:1]"
ENOUGH = 1 << 30


class Stores(StorePlace):
    """Opens stores in memory, or below a folder, and remembers them."""

    def __init__(self, budget: int = ENOUGH, folder: Path | None = None) -> None:
        super().__init__(folder, budget)
        self.made: list[Store]
        object.__setattr__(self, "made", [])

    def open(self, key: StoreKey, streams: Sequence[StreamSpec]) -> Store:
        self.made.append(super().open(key, streams))
        return self.made[-1]


def batch_of(*lengths: int, seed: int = 0, width: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(*lengths, width)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(3, 50, mask.shape, generator=generator) * mask, "attention_mask": mask}


BATCH = batch_of(7, 5, 3)


def frozen_model(kind: str = "bert", frozen: str = FROZEN) -> PreTrainedModel:
    model: PreTrainedModel = tiny(kind)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    fl.freeze(model, frozen)
    model.train(mode=False)
    return model


def engine_of(model: nn.Module, stores: Stores | None = None) -> Engine:
    engine = Engine(model, EngineSettings())
    engine.use(stores or Stores())
    return engine


def answer(model: nn.Module, engine: Engine, batch: dict[str, Any]) -> Tensor:
    with engine.active():
        logits: Tensor = model(**batch).logits
    return logits


def assert_plain(model: nn.Module, engine: Engine, batch: dict[str, Any]) -> None:
    """On the engine, logits and gradients are those of the model without it."""
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found: list[list[Any]] = []
    for logits in (answer(model, engine, batch), model(**batch).logits):
        gradients = torch.autograd.grad(logits.square().sum(), trains, allow_unused=True)
        found += [[logits.detach(), *gradients]]
    for own, plain in zip(*found, strict=True):
        if own is None or plain is None:
            assert all(value is None or not value.any() for value in (own, plain))
        else:
            torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-5)
