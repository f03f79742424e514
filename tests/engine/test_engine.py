"""The engine's fast paths: what they answer, for which batches, and what of it holds after a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from frostline.engine.engine import Engine
from frostline.engine.settings import EngineSettings
from tests.engine.answering import BATCH, FROZEN, Stores, answer, assert_plain, batch_of, engine_of, frozen_model

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from transformers import PreTrainedModel


def count_layer_calls(monkeypatch: pytest.MonkeyPatch, model: PreTrainedModel, layer: int) -> list[tuple[int, ...]]:
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
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        check = engine.check(BATCH)
        assert check is not None
        assert check.boundary == "layer 1"
        frozen, live = (count_layer_calls(monkeypatch, model, layer) for layer in (0, 1))
        for _ in range(3):
            answer(model, engine, BATCH)
        assert frozen == [(1, 16, 16)]  # 15 tokens, rounded up
        assert [shape[:2] for shape in live[-3:]] == [(3, 1)] * 3  # the first token of each row
        assert stores.made[0].rows == 3
        assert engine.store is stores.made[0]

    @pytest.mark.parametrize("kind", ["bert", "roberta", "distilbert", "electra", "deberta-v2", "gpt2", "llama", "xlm"])
    @pytest.mark.parametrize("frozen", [FROZEN, "backbone", "embeddings"])
    def test_results_are_the_plain_forwards(self, kind: str, frozen: str) -> None:
        model = frozen_model(kind, frozen)
        engine = engine_of(model)
        for batch in (BATCH, batch_of(2, 9, 4, 9, seed=1, width=11), batch_of(6, seed=2), BATCH):
            assert_plain(model, engine, batch)

    def test_training_steps_are_those_of_the_plain_model(self) -> None:
        def losses(engine: bool) -> list[float]:
            model = frozen_model().train()
            for module in model.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
            own, found = engine_of(model), []
            for step in range(12):
                batch = batch_of(7, 5, 3, seed=step % 4) | {"labels": torch.tensor([0, 1, 0])}
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
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        answer(model, engine, BATCH)
        mixed = {
            name: torch.cat([value, other])
            for (name, value), other in zip(BATCH.items(), batch_of(7, 7, seed=5).values(), strict=True)
        }
        assert_plain(model, engine, mixed)
        assert stores.made[0].rows == 5

    def test_the_same_row_twice_is_stored_once(self) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        twice = {name: value[[0, 1, 0, 1]] for name, value in BATCH.items()}
        assert_plain(model, engine, twice)
        assert stores.made[0].rows == 2

    def test_a_full_store_takes_no_more_and_results_stay_the_same(self) -> None:
        model, stores = frozen_model(), Stores(budget=1)
        engine = engine_of(model, stores)
        assert_plain(model, engine, BATCH)
        held = stores.made[0].rows
        other = batch_of(6, 4, seed=3)
        assert_plain(model, engine, other)
        assert stores.made[0].rows == held == 3
        assert engine.answered == 2

    def test_without_a_store_everything_runs(self) -> None:
        model = frozen_model()
        engine = Engine(model, EngineSettings())
        assert_plain(model, engine, BATCH)
        assert engine.checked is not None
        assert engine.checked.boundary == "layer 1"
        assert engine.store is None
        assert engine.fill(BATCH) == 0

    def test_filling_counts_what_it_computed(self) -> None:
        model = frozen_model()
        engine = engine_of(model)
        assert engine.fill(BATCH) == 0  # nothing was tried yet
        engine.check(BATCH)
        assert engine.fill(BATCH) == 3
        assert engine.fill(BATCH) == 0
        further = {name: nn.functional.pad(value, (0, 5)) for name, value in BATCH.items()}
        assert engine.fill(further) == 0
        assert engine.fill(batch_of(7, seed=9)) == 1


class TestOtherLayouts:
    """What was admitted for padding on the right says nothing about any other."""

    @pytest.mark.parametrize("frozen", [FROZEN, "backbone", "embeddings"])
    @pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
    def test_padding_on_the_left(self, kind: str, frozen: str) -> None:
        model = frozen_model(kind, frozen)
        engine = engine_of(model)
        left = {name: value.flip(1) for name, value in BATCH.items()}
        for batch in (BATCH, left, BATCH, left):
            assert_plain(model, engine, batch)

    def test_a_hole_in_the_mask(self, told: Callable[[], list[str]]) -> None:
        model = frozen_model()
        engine = engine_of(model)
        answer(model, engine, BATCH)
        mask = BATCH["attention_mask"].clone()
        mask[0, 2] = 0
        assert_plain(model, engine, BATCH | {"attention_mask": mask})
        assert ["a hole in its mask" in line for line in told()].count(True) == 1

    @pytest.mark.parametrize("kind", ["bert", "gpt2"])
    def test_no_mask(self, kind: str) -> None:
        model = frozen_model(kind)
        engine = engine_of(model)
        for batch in ({"input_ids": BATCH["input_ids"]}, BATCH, {"input_ids": BATCH["input_ids"]}):
            assert_plain(model, engine, batch)

    def test_a_lone_row_first(self) -> None:
        model = frozen_model("deberta-v2", "embeddings")
        engine = engine_of(model)
        assert_plain(model, engine, batch_of(4))
        assert_plain(model, engine, batch_of(9, 2, 5, width=11, seed=1))


class TestChanges:
    def test_thawing_a_layer_checks_anew_and_drops_the_store(self) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        assert_plain(model, engine, BATCH)
        model.get_submodule("bert.encoder.layer.0").requires_grad_()
        assert_plain(model, engine, BATCH)
        assert engine.store is None
        assert engine.checked is not None
        assert engine.checked.boundary is None
        assert stores.made[0].rows == 0  # closed
        assert model.get_parameter("bert.encoder.layer.0.output.dense.weight").requires_grad

    def test_freezing_one_more_layer_moves_the_boundary(self) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        assert_plain(model, engine, BATCH)
        model.get_submodule("bert.encoder.layer.1").requires_grad_(requires_grad=False)
        assert_plain(model, engine, BATCH)
        assert engine.checked is not None
        assert engine.checked.boundary == "pooler"
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
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        before = answer(model, engine, BATCH)
        with torch.no_grad():
            change(model)
        assert_plain(model, engine, BATCH)
        assert len(stores.made) == 2
        assert not torch.equal(answer(model, engine, BATCH).float(), before)

    def test_the_norm_of_a_frozen_encoder_belongs_to_the_prefix(self) -> None:
        model = frozen_model("t5", "embeddings, encoder.layers[:], transformer.encoder.final_layer_norm.weight")
        model.config.decoder_start_token_id = 0
        batch = batch_of(7, 5, 3)
        batch["input_ids"][torch.arange(3), torch.tensor([6, 4, 2])] = model.config.eos_token_id
        engine = engine_of(model)
        assert_plain(model, engine, batch)
        assert engine.checked is not None
        assert engine.checked.boundary == "decoder layer 0"
        with torch.no_grad():
            model.get_parameter("transformer.encoder.final_layer_norm.weight").mul_(2)
        assert_plain(model, engine, batch)

    def test_a_suffix_that_trains_keeps_the_store(self) -> None:
        model, stores = frozen_model(), Stores()
        engine = engine_of(model, stores)
        answer(model, engine, BATCH)
        with torch.no_grad():
            model.get_parameter("classifier.weight").mul_(2)
        assert_plain(model, engine, BATCH)
        assert len(stores.made) == 1
