"""Models, batches and steps that the tests of the probe share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F  # noqa: N812

import frostline as fl
from tests.models import Plain, tiny

if TYPE_CHECKING:
    from torch import nn

    from frostline.evidence.probe.movement import Probe, ProbeRow

IDS = torch.randint(3, 10, (4, 7), generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 1, 0])
TEXTS = {"input_ids": IDS, "labels": LABELS}
PAIR = (IDS, LABELS)


def probe_of(model: nn.Module, optimizer: Any = None, **options: Any) -> Probe:
    if isinstance(model, Plain):
        return fl.probe(model, PAIR, optimizer, loss=F.cross_entropy, **options)
    return fl.probe(model, TEXTS, optimizer, **options)


def loss_of(model: nn.Module) -> torch.Tensor:
    if isinstance(model, Plain):
        return F.cross_entropy(model(IDS), LABELS)
    return cast("torch.Tensor", model(**TEXTS).loss)


def real_step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss_of(model).backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def row(found: Probe, name: str) -> ProbeRow:
    return next(row for row in found.rows if row.name == name)


def moved(found: Probe) -> set[str]:
    return {parameter.name for parameter in found.parameters if parameter.moved}


def build(kind: str) -> Any:
    return Plain() if kind == "plain" else tiny(kind)
