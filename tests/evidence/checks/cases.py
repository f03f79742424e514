"""What the tests of all checks share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch

from frostline.evidence.checks.run import check
from tests.models import batch, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn
    from transformers import PreTrainedModel

    from frostline.evidence.checks.findings import Finding


def found(slug: str, model: nn.Module, *arguments: Any, **options: Any) -> Finding | None:
    """The finding of one slug; None where the check is silent. It is the only one of its slug."""
    rows = [row for row in check(model, *arguments, **options) if row.slug == slug]
    assert len(rows) <= 1
    return rows[0] if rows else None


def must_find(slug: str, model: nn.Module, *arguments: Any, **options: Any) -> Finding:
    row = found(slug, model, *arguments, **options)
    assert row is not None
    assert row.cause.endswith(".")
    assert row.mend.endswith(".")
    return row


def rows(**extra: Any) -> dict[str, Any]:
    """A batch with labels for a tiny model of transformers."""
    return {"input_ids": batch(), "labels": torch.tensor([0, 1, 0, 1])} | extra


def adamw(model: nn.Module, **options: Any) -> torch.optim.AdamW:
    """AdamW over what trains."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], **({"lr": 1e-3} | options))


def loaded(folder: Path, kind: str = "bert", **options: Any) -> PreTrainedModel:
    """A classifier whose backbone comes from a checkpoint, and whose head is new."""
    from transformers import AutoModelForSequenceClassification

    cast("Any", tiny(kind)).base_model.save_pretrained(folder)
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(folder, **options)
    return model
