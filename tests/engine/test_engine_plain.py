"""Where the engine leaves calls to the plain forward, and what others do around it."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from torch import nn

import frostline as fl
from frostline.engine.runner import Runner
from tests.engine.answering import BATCH, FROZEN, Stores, answer, assert_plain, batch_of, engine_of, frozen_model
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


class TestPlainPath:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"output_hidden_states": True}, "output_hidden_states was given"),
            ({"output_attentions": True}, "output_attentions was given"),
        ],
    )
    def test_more_outputs(self, options: dict[str, bool], reason: str, told: Callable[[], list[str]]) -> None:
        model = frozen_model()
        engine = engine_of(model)
        for _ in range(2):
            with engine.active():
                output = model(**BATCH, **options)
        plain = model(**BATCH, **options)
        assert output.keys() == plain.keys()
        assert torch.equal(output.logits, plain.logits)
        assert [line for line in told() if reason in line] == [f"Plain path: {reason}."]

    def test_hooks_that_transformers_leaves_behind_are_none(self, told: Callable[[], list[str]]) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        with engine.active():
            model(**BATCH, output_attentions=True)
        if not any(module._forward_hooks for module in model.modules()):
            pytest.skip("this version of transformers leaves none")
        answer(model, engine, BATCH)
        assert not any("hooks" in line for line in told())
        assert stores.made

    def test_gradient_checkpointing(self, told: Callable[[], list[str]]) -> None:
        model = frozen_model().train()
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
        engine = engine_of(model)
        model.get_submodule("bert.encoder.layer.1").gradient_checkpointing = False
        answer(model, engine, BATCH)
        assert engine.checked is None
        assert any("gradient checkpointing" in line for line in told())
        model.train(mode=False)
        assert_plain(model, engine, BATCH)
        assert engine.checked is not None

    def test_frozen_layers_that_follow_train_are_not_stored(self, told: Callable[[], list[str]]) -> None:
        model = tiny("bert")
        fl.freeze(model, FROZEN, frozen_mode="train")
        stores = Stores()
        engine = engine_of(model, stores)
        first, second = (answer(model.train(), engine, BATCH) for _ in range(2))
        assert not torch.equal(first, second)
        assert any("frozen layers are in train mode" in line for line in told())
        model.train(mode=False)
        assert_plain(model, engine, BATCH)

    def test_hooks_see_what_they_always_see(self, told: Callable[[], list[str]]) -> None:
        model = frozen_model()
        engine = engine_of(model)
        seen: list[Tensor] = []
        layer = model.get_submodule("bert.encoder.layer.0")
        handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
        own, plain = answer(model, engine, BATCH), model(**BATCH).logits
        assert torch.equal(own, plain)
        assert len(seen) == 2
        assert torch.equal(seen[0], seen[1])
        assert any("hooks" in line for line in told())
        handle.remove()
        assert_plain(model, engine, BATCH)

    def test_batch_normalisation_that_trains(self) -> None:
        class Normalised(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner, self.norm = inner, nn.BatchNorm1d(16)

            def forward(self, *arguments: Any) -> Tensor:
                hidden: Tensor = self.inner(*arguments)
                return self.norm(hidden.flatten(0, 1)).view_as(hidden)  # type: ignore[no-any-return]

        model = frozen_model()
        layer = model.get_submodule("bert.encoder.layer.1")
        layer.output = Normalised(layer.output)  # type: ignore[arg-type]
        for module in model.train().modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        engine = engine_of(model)
        assert torch.equal(answer(model, engine, BATCH), model(**BATCH).logits)

    def test_tuples(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        with engine.active():
            (own,) = model(**BATCH, return_dict=False)
        torch.testing.assert_close(own, model(**BATCH).logits, rtol=1e-5, atol=1e-5)
        assert engine.answered == 1
        assert_plain(model, engine, BATCH)


class TestAround:
    def test_it_may_be_activated_within_itself(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        with engine.active():
            with engine.active():
                inner = model(**BATCH).logits
            outer = model(**BATCH).logits
        assert torch.equal(inner, outer)
        assert "forward" not in vars(model)

    def test_first_within_inference_mode(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        with torch.inference_mode():
            answer(model, engine, BATCH)
        assert_plain(model, engine, BATCH)

    def test_precision_may_change(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        with torch.autocast("cpu", torch.bfloat16):
            low = answer(model, engine, BATCH)
            torch.testing.assert_close(low, model(**BATCH).logits, rtol=0.05, atol=0.05)
        assert_plain(model, engine, BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(answer(model, engine, BATCH), low, rtol=0.05, atol=0.05)

    def test_a_forward_that_raises_leaves_everything_as_before(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        answer(model, engine, BATCH)
        bad = BATCH | {"input_ids": BATCH["input_ids"] + 1000}
        with pytest.raises(IndexError):
            answer(model, engine, bad)
        assert not any("forward" in vars(module) for module in model.modules())
        assert_plain(model, engine, BATCH)

    def test_a_first_call_that_raises_leaves_everything_as_before(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        state, modes = torch.random.get_rng_state(), [module.training for module in model.modules()]
        with pytest.raises(IndexError):
            answer(model, engine, BATCH | {"input_ids": BATCH["input_ids"] + 1000})
        assert torch.equal(torch.random.get_rng_state(), state)
        assert [module.training for module in model.modules()] == modes
        assert not any("forward" in vars(module) for module in model.modules())
        assert_plain(model, engine, BATCH)

    def test_somebody_elses_forward_comes_back(self) -> None:
        model = frozen_model()
        plain = model.forward

        def autocasting(*arguments: Any, **options: Any) -> Any:
            return plain(*arguments, **options)

        model.forward = autocasting
        engine = engine_of(model)
        assert_plain(model, engine, BATCH)
        assert vars(model)["forward"] is autocasting

    def test_adapters_on_the_top_layers(self) -> None:
        model = frozen_model()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
            config = peft.LoraConfig(
                task_type="SEQ_CLS",
                target_modules=["query", "key", "value"],
                layers_to_transform=[1],
                init_lora_weights=False,
                lora_dropout=0.0,
            )
            adapted = peft.get_peft_model(model, config).eval()
        engine = engine_of(adapted)
        assert_plain(adapted, engine, BATCH)
        assert_plain(adapted, engine, batch_of(4, 9, seed=2))
        assert engine.checked is not None
        assert engine.checked.boundary == "layer 1"

    def test_wrapped_for_several_processes(self, tmp_path: Any) -> None:
        from torch import distributed

        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        try:
            model = frozen_model()
            wrapped = nn.parallel.DistributedDataParallel(model)
            engine = engine_of(wrapped)
            for batch in (BATCH, batch_of(2, 8, seed=4)):
                for own in (True, False):
                    model.zero_grad()
                    logits = answer(wrapped, engine, batch) if own else wrapped(**batch).logits
                    logits.square().sum().backward()
                    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
                    if own:
                        fast = found
                assert fast.keys() == found.keys()
                for name, gradient in found.items():
                    torch.testing.assert_close(fast[name], gradient, rtol=1e-4, atol=1e-5)
            assert engine.store is not None
            assert engine.store.rows == 5
        finally:
            distributed.destroy_process_group()

    def test_a_batch_that_cannot_be_stored_runs_from_its_texts(
        self, monkeypatch: pytest.MonkeyPatch, told: Callable[[], list[str]]
    ) -> None:
        from frostline.engine.replay.replay import NotReplayable

        def refusing(*_: Any) -> None:
            raise NotReplayable("it has another shape in every batch")

        model = frozen_model()
        engine = engine_of(model)
        engine.check(BATCH)
        monkeypatch.setattr(Runner, "tap_each", refusing)
        assert_plain(model, engine, BATCH)
        with pytest.raises(NotReplayable, match="another shape in every batch"):
            engine.fill(BATCH)
        assert any("another shape in every batch" in line for line in told())
