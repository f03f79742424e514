from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from torch import nn

import frostline as fl
from frostline.engine.engine import Engine
from frostline.engine.paths import Runner
from frostline.engine.settings import EngineSettings
from frostline.engine.store.store import Store
from frostline.log import get_logger
from tests.models import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor
    from transformers import PreTrainedModel

FROZEN = "embeddings, layers[:1]"
ENOUGH = 1 << 30


class Stores:
    """Makes stores in memory, and remembers them."""

    def __init__(self, budget: int = ENOUGH) -> None:
        self.made: list[Store] = []
        self.budget = budget

    def __call__(self, _: Any, key: Callable[[], Any], streams: Any) -> tuple[Store, int]:
        self.made.append(Store.in_memory(key(), streams))
        return self.made[-1], self.budget


def _batch(*lengths: int, seed: int = 0, width: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(*lengths, width)) < torch.tensor(lengths)[:, None]).long()
    return {"input_ids": torch.randint(3, 50, mask.shape, generator=generator) * mask, "attention_mask": mask}


BATCH = _batch(7, 5, 3)


def _model(kind: str = "bert", frozen: str = FROZEN) -> PreTrainedModel:
    model: PreTrainedModel = tiny(kind)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    fl.freeze(model, frozen)
    model.train(mode=False)
    return model


def _engine(model: nn.Module, stores: Stores | None = None) -> Engine:
    return Engine(model, EngineSettings(), stores or Stores())


def _answer(model: nn.Module, engine: Engine, batch: dict[str, Any]) -> Tensor:
    with engine.active():
        logits: Tensor = model(**batch).logits
    return logits


def _assert_plain(model: nn.Module, engine: Engine, batch: dict[str, Any]) -> None:
    """On the engine, logits and gradients are those of the model without it."""
    trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
    found: list[list[Any]] = []
    for logits in (_answer(model, engine, batch), model(**batch).logits):
        gradients = torch.autograd.grad(logits.square().sum(), trains, allow_unused=True)
        found += [[logits.detach(), *gradients]]
    for own, plain in zip(*found, strict=True):
        if own is None or plain is None:
            assert all(value is None or not value.any() for value in (own, plain))
        else:
            torch.testing.assert_close(own, plain, rtol=1e-4, atol=1e-5)


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    logger = get_logger()
    before, logger.propagate = logger.propagate, True
    with caplog.at_level(logging.INFO, logger="frostline"):
        yield lambda: [record.getMessage() for record in caplog.records]
    logger.propagate = before


def _count_layer_calls(monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel, layer: int) -> list[tuple[int, ...]]:
    """The shapes with which a layer of the class's own forward is called from here on."""
    shapes: list[tuple[int, ...]] = []
    module = model.get_submodule(f"bert.encoder.layer.{layer}")
    plain = module.forward

    def forward(hidden: Tensor, *arguments: Any, **options: Any) -> Any:
        shapes.append(tuple(hidden.shape))
        return plain(hidden, *arguments, **options)

    monkeypatch.setitem(vars(module), "forward", forward)
    return shapes


class TestFastPath:
    def test_frozen_layers_run_once_per_text_and_no_padding_is_computed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        check = engine.ready(BATCH)
        assert check is not None
        assert check.boundary == "layer 1"
        frozen, live = (_count_layer_calls(monkeypatch, model, layer) for layer in (0, 1))
        for _ in range(3):
            _answer(model, engine, BATCH)
        assert frozen == [(1, 16, 16)]  # 15 tokens, rounded up
        assert [shape[:2] for shape in live[-3:]] == [(3, 1)] * 3  # the first token of each row
        assert stores.made[0].rows == 3
        assert engine.store is stores.made[0]

    @pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "gpt2", "llama", "xlm"])
    @pytest.mark.parametrize("frozen", [FROZEN, "backbone", "embeddings"])
    def test_results_are_the_plain_forwards(self, kind: str, frozen: str) -> None:
        model = _model(kind, frozen)
        engine = _engine(model)
        for batch in (BATCH, _batch(2, 9, 4, 9, seed=1, width=11), _batch(6, seed=2), BATCH):
            _assert_plain(model, engine, batch)

    def test_training_steps_are_those_of_the_plain_model(self) -> None:
        def losses(engine: bool) -> list[float]:
            model = _model().train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
            own, found = _engine(model), []
            for step in range(12):
                batch = _batch(7, 5, 3, seed=step % 4) | {"labels": torch.tensor([0, 1, 0])}
                if engine:
                    with own.active():
                        loss = model(**batch).loss
                else:
                    loss = model(**batch).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                found.append(loss.item())
            return found

        assert losses(engine=True) == pytest.approx(losses(engine=False), abs=1e-4)

    def test_a_row_never_seen_is_computed(self) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        _answer(model, engine, BATCH)
        mixed = {
            name: torch.cat([value, other])
            for (name, value), other in zip(BATCH.items(), _batch(7, 7, seed=5).values(), strict=True)
        }
        _assert_plain(model, engine, mixed)
        assert stores.made[0].rows == 5

    def test_the_same_row_twice_is_stored_once(self) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        twice = {name: value[[0, 1, 0, 1]] for name, value in BATCH.items()}
        _assert_plain(model, engine, twice)
        assert stores.made[0].rows == 2

    def test_a_full_store_takes_no_more_and_results_stay_the_same(self) -> None:
        model, stores = _model(), Stores(budget=1)
        engine = _engine(model, stores)
        _assert_plain(model, engine, BATCH)
        held = stores.made[0].rows
        other = _batch(6, 4, seed=3)
        _assert_plain(model, engine, other)
        assert stores.made[0].rows == held == 3
        assert engine.missing(other) == 2
        assert engine.missing(BATCH) == 0

    def test_without_a_store_everything_runs(self) -> None:
        model = _model()
        engine = Engine(model, EngineSettings(), lambda *_: None)
        _assert_plain(model, engine, BATCH)
        assert engine.store is None
        assert engine.fill(BATCH) == 0

    def test_filling_counts_what_it_computed(self) -> None:
        model = _model()
        engine = _engine(model)
        assert engine.fill(BATCH) == 3
        assert engine.fill(BATCH) == 0
        further = {name: nn.functional.pad(value, (0, 5)) for name, value in BATCH.items()}
        assert engine.fill(further) == 0
        assert engine.fill(_batch(7, seed=9)) == 1


class TestOtherLayouts:
    """What was admitted for padding on the right says nothing about any other."""

    @pytest.mark.parametrize("frozen", [FROZEN, "backbone", "embeddings"])
    @pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
    def test_padding_on_the_left(self, kind: str, frozen: str) -> None:
        model = _model(kind, frozen)
        engine = _engine(model)
        left = {name: value.flip(1) for name, value in BATCH.items()}
        for batch in (BATCH, left, BATCH, left):
            _assert_plain(model, engine, batch)

    def test_a_hole_in_the_mask(self, told: Callable[[], list[str]]) -> None:
        model = _model()
        engine = _engine(model)
        _answer(model, engine, BATCH)
        mask = BATCH["attention_mask"].clone()
        mask[0, 2] = 0
        _assert_plain(model, engine, BATCH | {"attention_mask": mask})
        assert ["a hole in its mask" in line for line in told()].count(True) == 1

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    def test_no_mask(self, kind: str) -> None:
        model = _model(kind)
        engine = _engine(model)
        for batch in ({"input_ids": BATCH["input_ids"]}, BATCH, {"input_ids": BATCH["input_ids"]}):
            _assert_plain(model, engine, batch)

    def test_a_lone_row_first(self) -> None:
        model = _model("deberta-v2", "embeddings")
        engine = _engine(model)
        _assert_plain(model, engine, _batch(4))
        _assert_plain(model, engine, _batch(9, 2, 5, width=11, seed=1))


class TestChanges:
    def test_thawing_a_layer_checks_anew_and_drops_the_store(self) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        _assert_plain(model, engine, BATCH)
        model.get_submodule("bert.encoder.layer.0").requires_grad_()
        _assert_plain(model, engine, BATCH)
        assert engine.store is None
        assert engine.check is not None
        assert engine.check.boundary is None
        assert stores.made[0].rows == 0  # closed
        assert model.get_parameter("bert.encoder.layer.0.output.dense.weight").requires_grad

    def test_freezing_one_more_layer_moves_the_boundary(self) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        _assert_plain(model, engine, BATCH)
        model.get_submodule("bert.encoder.layer.1").requires_grad_(requires_grad=False)
        _assert_plain(model, engine, BATCH)
        assert engine.check is not None
        assert engine.check.boundary == "pooler"
        assert len(stores.made) == 2

    @pytest.mark.parametrize(
        "change",
        [
            lambda model: model.get_parameter("bert.encoder.layer.0.output.dense.weight").mul_(2),
            lambda model: model.get_parameter("bert.embeddings.word_embeddings.weight").mul_(2),
            lambda model: model.load_state_dict({n: t + 1 for n, t in model.state_dict().items()}),
            lambda model: setattr(
                model.get_submodule("bert.encoder.layer.0.output.dense"),
                "weight",
                nn.Parameter(torch.ones(16, 32), requires_grad=False),
            ),
            lambda model: model.double(),
        ],
        ids=["a layer", "embeddings", "all", "a new parameter", "double precision"],
    )
    def test_a_changed_prefix_is_noticed(self, change: Callable[[PreTrainedModel], object]) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        before = _answer(model, engine, BATCH)
        with torch.no_grad():
            change(model)
        _assert_plain(model, engine, BATCH)
        assert len(stores.made) == 2
        assert not torch.equal(_answer(model, engine, BATCH).float(), before)

    def test_the_norm_of_a_frozen_encoder_belongs_to_the_prefix(self) -> None:
        model = _model("t5", "embeddings, encoder.layers[:], transformer.encoder.final_layer_norm.weight")
        model.config.decoder_start_token_id = 0
        batch = _batch(7, 5, 3)
        batch["input_ids"][torch.arange(3), torch.tensor([6, 4, 2])] = model.config.eos_token_id
        engine = _engine(model)
        _assert_plain(model, engine, batch)
        assert engine.check is not None
        assert engine.check.boundary == "decoder layer 0"
        with torch.no_grad():
            model.get_parameter("transformer.encoder.final_layer_norm.weight").mul_(2)
        _assert_plain(model, engine, batch)

    def test_a_suffix_that_trains_keeps_the_store(self) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        _answer(model, engine, BATCH)
        with torch.no_grad():
            model.get_parameter("classifier.weight").mul_(2)
        _assert_plain(model, engine, BATCH)
        assert len(stores.made) == 1


class TestPlainPath:
    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"output_hidden_states": True}, "output_hidden_states was given"),
            ({"output_attentions": True}, "output_attentions was given"),
        ],
    )
    def test_more_outputs(self, options: dict[str, bool], reason: str, told: Callable[[], list[str]]) -> None:
        model = _model()
        engine = _engine(model)
        for _ in range(2):
            with engine.active():
                output = model(**BATCH, **options)
        plain = model(**BATCH, **options)
        assert output.keys() == plain.keys()
        assert torch.equal(output.logits, plain.logits)
        assert [line for line in told() if reason in line] == [f"Plain path: {reason}."]

    def test_hooks_that_transformers_leaves_behind_are_none(self, told: Callable[[], list[str]]) -> None:
        model, stores = _model(), Stores()
        engine = _engine(model, stores)
        with engine.active():
            model(**BATCH, output_attentions=True)
        assert any(module._forward_hooks for module in model.modules())
        _answer(model, engine, BATCH)
        assert not any("hooks" in line for line in told())
        assert stores.made

    def test_gradient_checkpointing(self, told: Callable[[], list[str]]) -> None:
        model = _model().train()
        for module in model.modules():
            if hasattr(module, "gradient_checkpointing"):
                module.gradient_checkpointing = True
        engine = _engine(model)
        model.get_submodule("bert.encoder.layer.1").gradient_checkpointing = False
        _answer(model, engine, BATCH)
        assert engine.check is None
        assert any("gradient checkpointing" in line for line in told())
        model.train(mode=False)
        _assert_plain(model, engine, BATCH)
        assert engine.check is not None

    def test_frozen_layers_that_follow_train_are_not_stored(self, told: Callable[[], list[str]]) -> None:
        model = tiny("bert")
        fl.freeze(model, FROZEN, frozen_mode="train")
        stores = Stores()
        engine = _engine(model, stores)
        first, second = (_answer(model.train(), engine, BATCH) for _ in range(2))
        assert not torch.equal(first, second)
        assert any("frozen_mode='train'" in line for line in told())
        model.train(mode=False)
        _assert_plain(model, engine, BATCH)

    def test_hooks_see_what_they_always_see(self, told: Callable[[], list[str]]) -> None:
        model = _model()
        engine = _engine(model)
        seen: list[Tensor] = []
        layer = model.get_submodule("bert.encoder.layer.0")
        handle = layer.register_forward_hook(lambda _, __, output: seen.append(output))
        own, plain = _answer(model, engine, BATCH), model(**BATCH).logits
        assert torch.equal(own, plain)
        assert len(seen) == 2
        assert torch.equal(seen[0], seen[1])
        assert any("hooks" in line for line in told())
        handle.remove()
        _assert_plain(model, engine, BATCH)

    def test_batch_normalisation_that_trains(self) -> None:
        class Normalised(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner, self.norm = inner, nn.BatchNorm1d(16)

            def forward(self, *arguments: Any) -> Tensor:
                hidden: Tensor = self.inner(*arguments)
                return self.norm(hidden.flatten(0, 1)).view_as(hidden)  # type: ignore[no-any-return]

        model = _model()
        layer = model.get_submodule("bert.encoder.layer.1")
        layer.output = Normalised(layer.output)  # type: ignore[arg-type]
        for module in model.train().modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        engine = _engine(model)
        assert torch.equal(_answer(model, engine, BATCH), model(**BATCH).logits)

    def test_tuples(self) -> None:
        model = _model()
        engine = _engine(model)
        with engine.active():
            (own,) = model(**BATCH, return_dict=False)
        torch.testing.assert_close(own, model(**BATCH).logits, rtol=1e-5, atol=1e-5)
        _assert_plain(model, engine, BATCH)


class TestAround:
    def test_it_may_be_activated_within_itself(self) -> None:
        model = _model()
        engine = _engine(model)
        with engine.active():
            with engine.active():
                inner = model(**BATCH).logits
            outer = model(**BATCH).logits
        assert torch.equal(inner, outer)
        assert "forward" not in vars(model)

    def test_first_within_inference_mode(self) -> None:
        model = _model()
        engine = _engine(model)
        with torch.inference_mode():
            _answer(model, engine, BATCH)
        _assert_plain(model, engine, BATCH)

    def test_precision_may_change(self) -> None:
        model = _model()
        engine = _engine(model)
        with torch.autocast("cpu", torch.bfloat16):
            low = _answer(model, engine, BATCH)
            torch.testing.assert_close(low, model(**BATCH).logits, rtol=0.05, atol=0.05)
        _assert_plain(model, engine, BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(_answer(model, engine, BATCH), low, rtol=0.05, atol=0.05)

    def test_a_forward_that_raises_leaves_everything_as_before(self) -> None:
        model = _model()
        engine = _engine(model)
        _answer(model, engine, BATCH)
        bad = BATCH | {"input_ids": BATCH["input_ids"] + 1000}
        with pytest.raises(IndexError):
            _answer(model, engine, bad)
        assert not any("forward" in vars(module) for module in model.modules())
        _assert_plain(model, engine, BATCH)

    def test_a_first_call_that_raises_leaves_everything_as_before(self) -> None:
        model = _model()
        engine = _engine(model)
        state, modes = torch.random.get_rng_state(), [module.training for module in model.modules()]
        with pytest.raises(IndexError):
            _answer(model, engine, BATCH | {"input_ids": BATCH["input_ids"] + 1000})
        assert torch.equal(torch.random.get_rng_state(), state)
        assert [module.training for module in model.modules()] == modes
        assert not any("forward" in vars(module) for module in model.modules())
        _assert_plain(model, engine, BATCH)

    def test_somebody_elses_forward_comes_back(self) -> None:
        model = _model()
        plain = model.forward

        def autocasting(*arguments: Any, **options: Any) -> Any:
            return plain(*arguments, **options)

        model.forward = autocasting
        engine = _engine(model)
        _assert_plain(model, engine, BATCH)
        assert vars(model)["forward"] is autocasting

    def test_adapters_on_the_top_layers(self) -> None:
        model = _model()
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
        engine = _engine(adapted)
        _assert_plain(adapted, engine, BATCH)
        _assert_plain(adapted, engine, _batch(4, 9, seed=2))
        assert engine.check is not None
        assert engine.check.boundary == "layer 1"

    def test_wrapped_for_several_processes(self, tmp_path: Any) -> None:
        from torch import distributed

        distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
        try:
            model = _model()
            wrapped = nn.parallel.DistributedDataParallel(model)
            engine = _engine(wrapped)
            for batch in (BATCH, _batch(2, 8, seed=4)):
                for own in (True, False):
                    model.zero_grad()
                    logits = _answer(wrapped, engine, batch) if own else wrapped(**batch).logits
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
        from frostline.engine.replay import NotReplayable

        def refusing(*_: Any) -> None:
            raise NotReplayable("it has another shape in every batch")

        model = _model()
        engine = _engine(model)
        engine.ready(BATCH)
        monkeypatch.setattr(Runner, "tap", refusing)
        _assert_plain(model, engine, BATCH)
        assert engine.fill(BATCH) == 0
        assert any("another shape in every batch" in line for line in told())
