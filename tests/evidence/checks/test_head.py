from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import frostline as fl
from tests.evidence.checks.cases import adamw, found, loaded, must_find, rows
from tests.models import Plain, batch, tiny

if TYPE_CHECKING:
    from pathlib import Path

DENSE = "classifier.dense.weight"


@pytest.mark.parametrize("from_checkpoint", [True, False])
def test_head_partly_trained(tmp_path: Path, from_checkpoint: bool) -> None:
    """RoBERTa's head has two layers; the first one is new, and is frozen with what lies beneath it."""
    model = loaded(tmp_path, "roberta") if from_checkpoint else tiny("roberta")
    assert found("head-partly-trained", model, adamw(model), rows()) is None
    fl.freeze(model, "backbone")
    assert found("head-partly-trained", model, adamw(model), rows()) is None
    fl.freeze(model, "backbone, classifier.dense")
    row = must_find("head-partly-trained", model)
    assert (row.severity, row.units, row.names) == ("warning", ("head",), (DENSE,))
    assert f"{DENSE} (frozen)" in row.cause
    assert ("no checkpoint is known" in row.cause) is not from_checkpoint
    assert found("new-but-frozen", model) is None  # said once


def test_a_part_that_the_optimizer_does_not_hold(tmp_path: Path) -> None:
    model = loaded(tmp_path, "roberta")
    held = [parameter for name, parameter in model.named_parameters() if name.startswith("classifier.out_proj")]
    row = must_find("head-partly-trained", model, torch.optim.AdamW(held))
    assert f"{DENSE} (not in the optimizer)" in row.cause


class Cut(Plain):
    """A head of two layers, of which the first gets no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        hidden = self.final_norm(self.blocks(self.embed(ids).mean(dim=1)))
        result: torch.Tensor = self.classifier[1](self.classifier[0](hidden).detach())
        return result


def test_a_part_that_gets_no_gradient() -> None:
    model = Cut()
    assert found("head-partly-trained", model) is None
    row = must_find("head-partly-trained", model, None, batch())
    assert "classifier.0.weight (no gradient)" in row.cause


def test_a_head_from_the_checkpoint_may_stay_in_part(tmp_path: Path) -> None:
    tiny("roberta").save_pretrained(tmp_path)
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    fl.freeze(model, "backbone, classifier.dense")
    assert found("head-partly-trained", model) is None


def test_a_head_that_does_not_train_at_all() -> None:
    model = tiny("roberta")
    fl.freeze(model, "head")
    assert found("head-partly-trained", model) is None
    assert must_find("head-frozen", model)


def test_what_is_not_random_may_stay() -> None:
    """Biases, and weights that are one number throughout, as those of a fresh normalisation."""
    model = tiny("roberta")
    fl.freeze(model, "bias")
    assert found("head-partly-trained", model) is None
    plain = Plain()
    plain.classifier = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2))  # type: ignore[assignment]
    fl.freeze(plain, "norms")
    assert found("head-partly-trained", plain) is None


def test_on_the_meta_device() -> None:
    model = tiny("roberta", meta=True)
    fl.freeze(model, "backbone, classifier.dense")
    assert must_find("head-partly-trained", model).names == (DENSE,)


@pytest.mark.parametrize("targets", [["query", "value"], "all-linear"])
def test_adapters_have_checks_of_their_own(tmp_path: Path, targets: Any) -> None:
    import warnings

    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, task_type="SEQ_CLS", target_modules=targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        model = peft.get_peft_model(loaded(tmp_path, "roberta"), config)
    findings = fl.check(model, adamw(model), rows())
    assert findings.ok, str(findings)
    assert {"head-partly-trained", "gradient-always-zero"}.isdisjoint(findings.slugs)


def test_head_rate_low() -> None:
    model = tiny("bert")
    assert found("head-rate-low", model, adamw(model, lr=5e-5)) is None  # as everything trains
    fl.freeze(model, "backbone")
    assert found("head-rate-low", model) is None
    assert found("head-rate-low", model, adamw(model, lr=5e-3)) is None
    assert found("head-rate-low", model, torch.optim.SGD(model.parameters(), lr=1e-3)) is None
    optimizer = adamw(model, lr=1e-3)
    row = must_find("head-rate-low", model, optimizer)
    assert (row.severity, row.units) == ("warning", ("head",))
    assert "0.01" in row.mend
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / 10))  # a warmup begins at 0
    assert must_find("head-rate-low", model, optimizer).cause == row.cause
