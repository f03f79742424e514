from __future__ import annotations

from typing import Any

import pytest
import torch

import frostline as fl
from frostline.errors import DataError, ModelError
from tests.models import checkpoint_activations, tiny
from tests.training import tokens


def batch() -> dict[str, torch.Tensor]:
    return tokens.collate(tokens.rows(8))


def test_what_is_measured() -> None:
    model = tokens.model()
    fl.freeze(model, tokens.LOWER)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    check = fl.selfcheck(model, batch())
    assert check.boundary == "layer 2"
    found = {found.path: found for found in check.checks}
    for path in ("padding-free", "replay", "one position"):
        assert found[path].admitted
        assert 0 <= (found[path].outputs or 0) <= 1e-5
        assert f"{path}: yes, " in str(check)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(random, torch.get_rng_state())
    assert model.training


def test_nothing_is_frozen() -> None:
    check = fl.selfcheck(tiny("bert"), batch() | {"input_ids": batch()["input_ids"] % 50})
    assert check.boundary is None
    assert "replay: no, no frozen layer lies beneath all that trains" in str(check)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (torch.ones(2, 3, dtype=torch.int64), "the fast paths are found by the names"),
        ({"inputs_embeds": torch.ones(2, 3, 16)}, "inputs_embeds was given"),
        ({**batch(), "output_hidden_states": True}, "output_hidden_states was given"),
        ({}, "The batch is empty"),
        ("text", "The batch is 'text', a str"),
    ],
)
def test_batches_that_cannot_be_read(given: Any, word: str) -> None:
    with pytest.raises(DataError, match=word):
        fl.selfcheck(tokens.model(), given)


def test_no_model() -> None:
    with pytest.raises(ModelError, match="The model is 'bert', a str"):
        fl.selfcheck("bert", batch())  # type: ignore[arg-type]


def test_activations_that_are_checkpointed() -> None:
    model = tokens.model().train()
    checkpoint_activations(model)
    with pytest.raises(
        ModelError,
        match=r"Only the plain path can run BertForSequenceClassification: gradient checkpointing.*\nSwitch it off",
    ):
        fl.selfcheck(model, batch())


def test_a_backbone_without_a_head() -> None:
    """It gives out no logits, and what it gives out is compared all the same."""
    backbone = tokens.model().base_model
    fl.freeze(backbone, tokens.LOWER)
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    check = fl.selfcheck(backbone, inputs)
    assert check.boundary == "layer 2"
    assert "one position: no, the head reads more than one position" in str(check)
