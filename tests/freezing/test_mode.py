"""The frozen mode: what frozen modules do when the model is put in training mode."""

from __future__ import annotations

import copy
import io
import pickle
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

import frostline as fl
from frostline.freezing.mode import frozen_mode_of, frozen_modules, is_pinned
from tests.models import Plain, batch, modes, tiny

if TYPE_CHECKING:
    from collections.abc import Callable


def saved_and_loaded(model: nn.Module) -> Any:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def backbone_modes(model: nn.Module) -> set[bool]:
    return set(modes(model.get_submodule("bert")).values())


class TestStaysInEval:
    def test_at_once_and_across_train_calls(self) -> None:
        model = tiny("bert").train()
        fl.freeze(model, "backbone")
        assert backbone_modes(model) == {False}
        for _ in range(2):
            assert model.train() is model
            assert backbone_modes(model) == {False}
            assert model.training
            assert model.get_submodule("classifier").training
            assert model.get_submodule("dropout").training
        model.eval()
        model.train()
        assert backbone_modes(model) == {False}

    def test_even_if_asked_directly(self) -> None:
        model = tiny("bert")
        fl.freeze(model, "backbone")
        backbone = model.get_submodule("bert")
        assert backbone.train() is backbone
        assert backbone_modes(model) == {False}
        model.get_submodule("bert.encoder.layer.0.output").train(mode=True)
        assert backbone_modes(model) == {False}

    def test_unless_it_follows(self) -> None:
        model = tiny("bert").train()
        fl.freeze(model, "backbone", frozen_mode="train")
        assert backbone_modes(model) == {True}
        model.eval()
        assert backbone_modes(model) == {False}
        model.train()
        assert backbone_modes(model) == {True}

    def test_a_later_freeze_decides_the_mode_of_all(self) -> None:
        model = tiny("bert").train()
        fl.freeze(model, "embeddings", frozen_mode="train")
        fl.freeze(model, "layers[0]")
        assert not model.get_submodule("bert.embeddings").training
        assert frozen_mode_of(model) == "eval"
        fl.freeze(model, "layers[1]", frozen_mode="train")
        assert model.get_submodule("bert.embeddings").training
        assert frozen_mode_of(model) == "train"

    @pytest.mark.parametrize(
        "moved",
        [
            lambda model: model.to("cpu"),
            lambda model: model.double(),
            lambda model: model.to(torch.bfloat16),
            copy.deepcopy,
            lambda model: pickle.loads(pickle.dumps(model)),
            saved_and_loaded,
            lambda model: pickle.loads(pickle.dumps(copy.deepcopy(model))),
        ],
    )
    def test_wherever_the_model_goes(self, moved: Callable[[nn.Module], nn.Module]) -> None:
        model = tiny("bert").train()
        fl.freeze(model, "backbone")
        other = moved(model).train()
        assert backbone_modes(other) == {False}
        assert other.training

    @pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
    def test_a_copy_has_pins_of_its_own(self, copied: Callable[[nn.Module], nn.Module]) -> None:
        model = tiny("bert").train()
        handle = fl.freeze(model, "backbone")
        other = copied(model)

        handle.restore()
        assert backbone_modes(model) == {True}
        assert backbone_modes(other.train()) == {False}

        child = other.get_submodule("bert")
        assert child.train() is child  # the pin speaks for the copy, not for the original
        assert backbone_modes(model) == {True}
        fl.train_only(other, "all")
        assert backbone_modes(other.train()) == {True}
        assert backbone_modes(model.eval()) == {False}
        assert backbone_modes(other) == {True}


class TestWhatIsFrozen:
    def test_a_partly_frozen_module_is_not_pinned(self) -> None:
        model = tiny("bert").train()
        fl.freeze(model, "layers[0], ~bias")
        assert not any(is_pinned(module) for module in model.modules())
        assert set(modes(model).values()) == {True}

    def test_a_module_whose_children_are_frozen_in_part(self) -> None:
        model = tiny("bert").train()
        fl.freeze(model, "bert.encoder.layer.0.attention")
        assert is_pinned(model.get_submodule("bert.encoder.layer.0.attention"))
        assert is_pinned(model.get_submodule("bert.encoder.layer.0.attention.self.dropout"))
        assert not is_pinned(model.get_submodule("bert.encoder.layer.0"))
        assert not is_pinned(model.get_submodule("bert.encoder.layer.0.output.dropout"))

    def test_modules_without_parameters_go_with_their_parent(self) -> None:
        model = Plain().train()
        fl.freeze(model, "layers[0]")
        assert not model.get_submodule("blocks.0.dropout").training
        assert model.get_submodule("blocks.1.dropout").training

    def test_a_model_without_parameters_is_not_frozen(self) -> None:
        assert list(frozen_modules(nn.Sequential(nn.Dropout(), nn.ReLU()))) == []

    def test_a_parameter_used_in_two_modules(self) -> None:
        model = nn.Module()
        model.first, model.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        model.third = nn.Linear(2, 2)
        model.second.weight = model.first.weight
        fl.freeze(model.train(), "first")
        assert (model.first.training, model.second.training, model.third.training) == (False, False, True)

    def test_nothing_frozen_counts_as_the_default(self) -> None:
        assert frozen_mode_of(Plain()) == "eval"


class TestWhatItChanges:
    def test_dropout_is_inactive_beneath_the_frost_line(self) -> None:
        model = tiny("bert", hidden_dropout_prob=0.5, attention_probs_dropout_prob=0.5).train()
        fl.freeze(model, "embeddings, layers")
        encoder: Any = model.get_submodule("bert")
        torch.manual_seed(0)
        first, second = (encoder(batch()).last_hidden_state for _ in range(2))
        assert torch.equal(first, second)
        logits = [model(batch()).logits for _ in range(2)]
        assert not torch.equal(*logits)  # the dropout before the head trains on

    def test_dropout_is_active_where_frozen_modules_follow(self) -> None:
        model = tiny("bert", hidden_dropout_prob=0.5).train()
        fl.freeze(model, "embeddings, layers", frozen_mode="train")
        encoder: Any = model.get_submodule("bert")
        torch.manual_seed(0)
        first, second = (encoder(batch()).last_hidden_state for _ in range(2))
        assert not torch.equal(first, second)

    @pytest.mark.parametrize("frozen_mode", ["eval", "train"])
    def test_batch_statistics(self, frozen_mode: str) -> None:
        model = Plain()
        fl.freeze(model, fl.Plan(freeze="embeddings, layers[:2]", frozen_mode=frozen_mode))  # type: ignore[arg-type]
        before = fl.fingerprint(model).digests
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
        for _ in range(3):
            model.train()
            optimizer.zero_grad()
            model(batch()).square().sum().backward()
            optimizer.step()
        after = fl.fingerprint(model).digests
        moved = {name for name in before if before[name] != after[name]}
        statistics = {f"blocks.{i}.norm.{name}" for i in range(3) for name in ("running_mean", "running_var")}
        frozen = {name for name in statistics if not name.startswith("blocks.2.")}
        assert statistics - frozen <= moved
        assert moved & frozen == (frozen if frozen_mode == "train" else set())
        assert "blocks.2.linear.weight" in moved
        assert not any(name.startswith("embed") for name in moved)
