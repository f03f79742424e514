from __future__ import annotations

import torch

import frostline as fl
from tests.evidence.checks.cases import found, must_find
from tests.models import Plain, tiny


def test_dropout_in_frozen() -> None:
    model = tiny("bert")
    assert found("dropout-in-frozen", model) is None
    for parameter in model.base_model.parameters():
        parameter.requires_grad = False
    row = must_find("dropout-in-frozen", model)
    assert row.severity == "note"
    assert "bert.embeddings.dropout" in row.names
    assert not any(name.startswith("classifier") for name in row.names)
    fl.freeze(model, "backbone")
    assert found("dropout-in-frozen", model) is None


def test_dropout_of_rate_zero() -> None:
    model = tiny("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    fl.freeze(model, "backbone", frozen_mode="train")
    assert found("dropout-in-frozen", model) is None


def test_functional_dropout() -> None:
    model = tiny("bart", dropout=0.1)
    fl.freeze(model, "backbone", frozen_mode="train")
    assert any(name.endswith("layers.0") for name in must_find("dropout-in-frozen", model).names)


def test_norm_stats_in_frozen() -> None:
    model = Plain()
    assert found("norm-stats-in-frozen", model) is None
    frozen = fl.freeze(model, "backbone", frozen_mode="train")
    row = must_find("norm-stats-in-frozen", model)
    assert row.severity == "warning"
    assert row.names == ("blocks.0.norm", "blocks.1.norm", "blocks.2.norm")
    statistics = model.get_buffer("blocks.0.norm.running_mean")
    before = statistics.clone()
    model.train()(torch.ones(2, 3, dtype=torch.long))
    assert not torch.equal(before, statistics)
    frozen.restore()
    fl.freeze(model, "backbone")
    assert found("norm-stats-in-frozen", model) is None


def test_eval_by_hand_is_seen() -> None:
    model = Plain().train()
    model.blocks.requires_grad_(False)
    assert found("norm-stats-in-frozen", model) is not None
    model.blocks.eval()
    assert found("norm-stats-in-frozen", model) is None
    model.eval()  # but the next train() undoes it
    assert found("norm-stats-in-frozen", model) is not None
