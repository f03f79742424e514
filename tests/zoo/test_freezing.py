"""Freezing the backbone of every type: a real step moves the head, and not a bit of anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import frostline as fl
from tests.thinning import one_in
from tests.zoo.build import CANNOT_BUILD, build, model_types

if TYPE_CHECKING:
    from frostline.evidence.proof.proof import Proof
    from frostline.plan.plan import FrozenMode

TYPES = [model_type for model_type in model_types() if model_type not in CANNOT_BUILD]

# A text too short for blocks makes BigBird exchange its attention, and ask for the eval mode of the new one itself.
EXCHANGES_MODULES = {"big_bird", "bigbird_pegasus"}


@pytest.mark.parametrize("model_type", one_in(2, TYPES))
def test_a_step_moves_the_head_alone(model_type: str) -> None:
    specimen = build(model_type)
    model = specimen.model.train()
    # RoFormer's table of positions never trains.
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    before = fl.fingerprint(model)
    frozen = fl.freeze(model, "backbone")
    # A decay would move a weight that gets no gradient.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.0)

    model(**specimen.batch, labels=specimen.labels).loss.backward()
    optimizer.step()

    proof = fl.verify(before, model, frozen.plan)
    proof.raise_for_drift()
    assert {unit.name: unit.verdict for unit in proof.units if unit.verdict != "frozen"} == {"head": "moved"}
    moved = {tensor.name for tensor in proof.tensors if tensor.moved}
    assert moved == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    frozen.restore()
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == flags
    if model_type not in EXCHANGES_MODULES:
        assert all(module.training for module in model.modules())


def _step(selector: str, frozen_mode: FrozenMode) -> Proof:
    specimen = build("reformer")
    model = specimen.model.train()
    before = fl.fingerprint(model)
    frozen = fl.freeze(model, selector, frozen_mode=frozen_mode)
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    model(**specimen.batch, labels=specimen.labels).loss.backward()
    optimizer.step()
    return fl.verify(before, model, frozen.plan)


class TestReversibleLayers:
    """Reformer computes the inputs of its layers again in the backward pass."""

    def test_frozen_layers_have_to_follow_train(self) -> None:
        with pytest.raises(AssertionError, match="training mode"):
            _step("layers[:2]", "eval")
        proof = _step("layers[:2]", "train")
        assert proof.ok
        assert {unit.verdict for unit in proof.units if unit.name in {"layer 0", "layer 1"}} == {"frozen"}
        assert "unmoved" not in {unit.verdict for unit in proof.units}

    def test_under_frozen_embeddings_no_layer_moves_and_the_proof_says_so(self) -> None:
        proof = _step("embeddings", "train")
        assert [unit.name for unit in proof.units if unit.verdict == "unmoved"] == [f"layer {n}" for n in range(4)]
        assert "unmoved although they may train: layer 0, layer 1, layer 2, layer 3" in str(proof)
