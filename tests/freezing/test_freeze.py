"""Freezing what a selector means, and giving it back."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import frostline as fl
from frostline.errors import FrostlineError, PlanError, SelectorError
from frostline.freezing.mode import follow_flags, is_pinned
from tests.models import Plain, batch, flags, modes, names_of, tiny, trainable

if TYPE_CHECKING:
    from collections.abc import Callable

    from frostline.freezing.freeze import Freeze


def pinned(model: nn.Module) -> set[str]:
    return {path for path, module in model.named_modules() if is_pinned(module)}


def state(model: nn.Module) -> tuple[dict[str, bool], dict[str, bool], set[str]]:
    """All that freezing may change."""
    return flags(model), modes(model), pinned(model)


class TestFlags:
    def test_freeze(self) -> None:
        model = tiny("bert")
        handle = fl.freeze(model, "embeddings, layers[:1], ~bias")
        frozen = {name for name in names_of(model, "bert.embeddings.", "bert.encoder.layer.0.") if "bias" not in name}
        assert trainable(model) == names_of(model, "") - frozen
        assert handle.model is model
        assert handle.plan == fl.Plan(freeze="embeddings, layers[:1], ~bias")

    def test_freeze_leaves_the_others_as_they_are(self) -> None:
        model = tiny("bert")
        model.get_parameter("classifier.bias").requires_grad_(False)
        fl.freeze(model, ["embeddings", "pooler"])
        assert trainable(model) == names_of(model, "bert.encoder.") | {"classifier.weight"}

    def test_what_an_earlier_plan_froze(self) -> None:
        model = tiny("bert")
        model.get_parameter("classifier.bias").requires_grad_(False)  # by hand, so of no plan
        first = fl.freeze(model, "backbone")
        assert first.frozen_beside == frozenset()
        second = fl.freeze(model, "embeddings")
        above = names_of(model, "bert.encoder.", "bert.pooler.")
        assert second.frozen_beside == above
        model.get_submodule("bert.pooler").requires_grad_(True)
        assert second.frozen_beside == names_of(model, "bert.encoder.")
        assert fl.train_only(model, "head").frozen_beside == frozenset()  # it names every parameter

    def test_what_a_plan_froze_that_was_taken_back(self) -> None:
        model = tiny("bert")
        fl.freeze(model, "backbone").restore()
        assert fl.freeze(model, "embeddings").frozen_beside == frozenset()

    def test_train_only(self) -> None:
        model = tiny("bert")
        model.requires_grad_(False)
        fl.train_only(model, "layers[-1], head")
        assert trainable(model) == names_of(model, "bert.encoder.layer.1.", "classifier.")

    def test_a_plan_brings_its_own_mode(self) -> None:
        model = tiny("bert")
        handle = fl.freeze(model, fl.Plan(train_only="head", frozen_mode="train"))
        assert handle.plan.frozen_mode == "train"
        assert trainable(model) == names_of(model, "classifier.")
        assert not pinned(model)

    def test_no_parameter_is_replaced(self) -> None:
        model = tiny("t5")
        before = {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)}
        digest = fl.fingerprint(model)
        fl.freeze(model, "backbone")
        fl.train_only(model, "encoder.layers").restore()
        assert {name: id(parameter) for name, parameter in model.named_parameters(remove_duplicate=False)} == before
        assert fl.fingerprint(model) == digest

    def test_a_gradient_that_lingers_is_dropped(self) -> None:
        model = Plain()
        model(batch()).sum().backward()
        by_hand = model.get_parameter("final_norm.weight").requires_grad_(False)
        fl.freeze(model, "embeddings")
        assert model.embed.weight.grad is None
        assert by_hand.grad is None
        assert model.classifier.weight.grad is not None

    def test_a_frozen_tensor_does_not_move_although_the_optimizer_holds_it(self) -> None:
        model = Plain()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
        for step in range(2):
            if step:
                fl.freeze(model, "embeddings")
                before = model.embed.weight.detach().clone()
            optimizer.zero_grad()
            model(batch()).sum().backward()
            if step:
                assert model.embed.weight.grad is None
            optimizer.step()
        assert torch.equal(model.embed.weight, before)

    def test_a_selector_that_does_not_fit_changes_nothing(self) -> None:
        model = tiny("bert")
        before = state(model)
        with pytest.raises(SelectorError, match=r"layers\[5\]"):
            fl.freeze(model, "embeddings, layers[5]")
        assert state(model) == before

    @pytest.mark.parametrize("act", [fl.freeze, fl.train_only])
    def test_what_is_no_selector_changes_nothing(self, act: Callable[..., object]) -> None:
        model = tiny("bert")
        before = state(model)
        with pytest.raises(FrostlineError, match="given was 8"):
            act(model, 8)
        assert state(model) == before

    def test_whole_numbers_cannot_train(self) -> None:
        model = nn.Module()
        model.linear = nn.Linear(2, 2).requires_grad_(False)
        model.codes = nn.Parameter(torch.zeros(2, dtype=torch.int8), requires_grad=False)
        with pytest.raises(PlanError, match=r"'train only all' trains codes.*torch\.int8"):
            fl.train_only(model, "all")
        assert not trainable(model)
        fl.train_only(model, "all, ~codes").restore()
        fl.freeze(model, "all")
        assert not trainable(model)

    def test_complex_and_scalar_parameters(self) -> None:
        model = nn.Module()
        model.wave = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
        model.scale = nn.Parameter(torch.ones(()))
        fl.freeze(model, "wave")
        assert trainable(model) == {"scale"}
        fl.train_only(model, "wave")
        assert trainable(model) == {"wave"}

    def test_a_module_registered_twice(self) -> None:
        model = nn.Module()
        model.first = nn.Linear(2, 2)
        model.second = model.first
        model.third = nn.Linear(2, 2)
        handle = fl.freeze(model.train(), "second")
        assert trainable(model) == {"third.weight", "third.bias"}
        assert not model.first.training
        handle.restore()
        assert len(trainable(model)) == 4
        assert model.first.training


class TestRestore:
    @pytest.mark.parametrize("frozen_mode", ["eval", "train"])
    @pytest.mark.parametrize("selector", ["all", "backbone", "head", "embeddings, layers[0], ~norms", "bias"])
    @pytest.mark.parametrize("training", [True, False])
    def test_all_is_as_before(self, selector: str, frozen_mode: str, training: bool) -> None:
        model = tiny("bert").train(training)
        model.get_submodule("bert.encoder.layer.1").requires_grad_(False)  # by hand
        model.get_submodule("bert.embeddings").eval()
        model.get_parameter("classifier.bias").requires_grad_(False)
        before = state(model)
        for handle in (
            fl.freeze(model, fl.Plan(freeze=selector, frozen_mode=frozen_mode)),  # type: ignore[arg-type]
            fl.freeze(model, fl.Plan(train_only=selector, frozen_mode=frozen_mode)),  # type: ignore[arg-type]
        ):
            assert state(model) != before
            handle.restore()
        # The second freeze was restored last, the first one before it: nested the other way round.
        assert state(model) == before

    def test_a_with_block(self) -> None:
        model = tiny("bert")
        before = state(model)
        with fl.freeze(model, "backbone") as handle:
            assert handle.model is model
            assert trainable(model) == names_of(model, "classifier.")
        assert state(model) == before

    def test_a_with_block_that_fails(self) -> None:
        model = tiny("bert")
        before = state(model)
        with pytest.raises(RuntimeError, match="inside"), fl.train_only(model, "head"):
            raise RuntimeError("inside")
        assert state(model) == before

    def test_a_second_call_does_nothing(self) -> None:
        model = tiny("bert").train()
        handle = fl.freeze(model, "embeddings")
        handle.restore()
        other = fl.freeze(model, "embeddings, pooler")
        frozen = state(model)
        handle.restore()
        assert state(model) == frozen
        other.restore()
        assert trainable(model) == names_of(model, "")

    def test_nested_blocks(self) -> None:
        model = tiny("bert").train()
        before = state(model)
        with fl.freeze(model, "embeddings"):
            outer = state(model)
            with fl.train_only(model, "head"):
                assert trainable(model) == names_of(model, "classifier.")
            assert state(model) == outer
        assert state(model) == before

    def test_thawed_inside_and_frozen_again_is_kept_in_eval_again(self) -> None:
        model = tiny("bert").train()
        with fl.freeze(model, "backbone"):
            outer = state(model)
            with fl.train_only(model, "embeddings, head"):
                assert model.get_submodule("bert.embeddings").training
            assert state(model) == outer
            model.train()
            assert not model.get_submodule("bert.embeddings").training

    def test_out_of_order(self) -> None:
        model = tiny("bert").train()
        before = state(model)
        first = fl.freeze(model, "embeddings")
        second = fl.freeze(model, "layers[0]")
        first.restore()
        assert trainable(model) == names_of(model, "") - names_of(model, "bert.encoder.layer.0.")
        model.train()
        assert model.get_submodule("bert.embeddings").training
        assert not model.get_submodule("bert.encoder.layer.0").training
        second.restore()
        assert state(model) == before

    def test_out_of_order_where_both_changed_the_same(self) -> None:
        model = tiny("bert").train()
        before = state(model)
        first = fl.freeze(model, "all")
        second = fl.train_only(model, "head")
        first.restore()
        assert model.get_parameter("classifier.weight").requires_grad
        second.restore()
        assert state(model) == before

    @given(st.data())
    def test_any_order(self, data: st.DataObject) -> None:
        model = Plain().train()
        model.final_norm.requires_grad_(False)
        model.embed.eval()
        before = state(model)
        selectors = st.sampled_from(["all", "embeddings", "layers[:2]", "layers[1:]", "head", "norm", "bias", "norms"])
        handles: list[Freeze] = []
        steps = data.draw(st.lists(st.tuples(st.sampled_from(["freeze", "only", "restore"]), selectors), max_size=8))
        for what, selector in steps:
            if what == "restore" and handles:
                handles.pop(data.draw(st.integers(0, len(handles) - 1))).restore()
                continue
            handles.append((fl.train_only if what == "only" else fl.freeze)(model, selector))
            wanted = set(fl.select(model, selector).names)
            assert trainable(model) == wanted if what == "only" else not trainable(model) & wanted
            for module in model.children():
                assert is_pinned(module) is not any(parameter.requires_grad for parameter in module.parameters())
        for handle in data.draw(st.permutations(handles)):
            handle.restore()
        assert state(model) == before

    def test_thawed_by_hand_meanwhile(self) -> None:
        model = tiny("bert")
        before = state(model)
        handle = fl.freeze(model, "backbone")
        model.get_submodule("bert.pooler").requires_grad_(True)
        handle.restore()
        assert state(model) == before

    def test_a_part_that_is_gone_or_replaced(self) -> None:
        model = Plain()
        handle = fl.freeze(model, "all")
        model.classifier = nn.Linear(4, 3)
        del model.final_norm
        handle.restore()
        assert trainable(model) == names_of(model, "")
        assert not pinned(model)

    @pytest.mark.parametrize("selector", ["all", "backbone"])
    @pytest.mark.parametrize(("at_first", "meanwhile"), [(True, False), (False, True)])
    def test_a_mode_that_was_asked_for_meanwhile(self, selector: str, at_first: bool, meanwhile: bool) -> None:
        model = tiny("bert").train(at_first)
        handle = fl.freeze(model, selector)
        model.train(meanwhile)
        handle.restore()
        assert set(modes(model).values()) == {meanwhile}

    def test_a_model_is_not_kept_alive(self) -> None:
        import weakref

        model = Plain()
        alive = weakref.ref(model)
        fl.freeze(model, "embeddings")
        del model
        gc.collect()
        assert alive() is None


def test_thawing_by_hand_releases_what_follows_the_flags() -> None:
    model = tiny("bert").train()
    fl.freeze(model, "all")
    assert set(modes(model).values()) == {False}
    model.get_submodule("bert.encoder.layer.1").requires_grad_(True)
    model.get_submodule("classifier").requires_grad_(True)

    follow_flags(model, stay_in_eval=True)

    released = {path for path, training in modes(model).items() if training}
    assert {"", "bert", "classifier", "bert.encoder.layer.1", "bert.encoder.layer.1.output.dropout"} <= released
    assert pinned(model) == set(modes(model)) - released
    assert not any(path.startswith(("bert.encoder.layer.0", "bert.embeddings", "bert.pooler")) for path in released)


def test_a_frozen_model_is_not_kept_alive() -> None:
    model = tiny("bert")
    fl.freeze(model, "backbone")
    watched = weakref.ref(model)
    del model
    gc.collect()
    assert watched() is None


def test_as_text() -> None:
    model = Plain()
    size = sum(parameter.numel() for parameter in model.parameters())
    count = len(names_of(model, ""))
    frozen = fl.freeze(model, "embeddings")
    held = model.embed.weight.numel()
    assert str(frozen).splitlines() == [
        "Plain: freeze embeddings",
        f"1 of {count} tensors are frozen: {held:,} of {size:,} parameters.",
    ]
    only = fl.train_only(model, "head")
    left = sum(parameter.numel() for parameter in model.classifier.parameters())
    assert str(only).splitlines() == [
        "Plain: train only head",
        f"{count - 2} of {count} tensors are frozen: {size - left:,} of {size:,} parameters.",
        "Frozen: backbone",
    ]
    only.restore()
    assert str(only).splitlines()[0] == "Plain: train only head (taken back)"
    assert str(only).splitlines()[-1] == "Frozen: embeddings"
