"""One pass that fills the stores of several frost lines: bit for bit what a pass for each alone gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import frostline as fl
from frostline.engine.engine import Engine
from frostline.engine.settings import EngineSettings
from tests.engine.answering import Stores, batch_of, frozen_model
from tests.engine.test_engine import count_layer_calls

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

BATCH = batch_of(9, 7, 5, 3)
OTHER = batch_of(4, 9, 4, seed=1)
FREEZES = ("embeddings, layers[:1]", "embeddings, layers[:2]", "backbone")


def engines_of(model: nn.Module, place: Stores) -> list[Engine]:
    """One engine for each frost line of the same model, thawed again."""
    engines = []
    for freeze in FREEZES:
        engine = Engine(model, EngineSettings())
        with fl.freeze(model, freeze):
            engine.check(BATCH)
            engine.use(place)
        engines.append(engine)
    return engines


def stored(engine: Engine, batch: dict[str, Any]) -> dict[str, Tensor]:
    wanted = engine.wanted(batch)
    assert wanted is not None
    assert wanted.missing == []
    return {name: packed.values for name, packed in wanted.store.get(wanted.digests).items()}


@pytest.mark.parametrize(
    ("kind", "on_disk"),
    [("bert", True)]
    + [(kind, False) for kind in ("bert", "roberta", "distilbert", "electra", "deberta-v2", "gpt2", "llama", "xlm")],
)
def test_one_pass_stores_what_one_for_each_boundary_does(kind: str, on_disk: bool, tmp_path: Path) -> None:
    model = frozen_model(kind, "embeddings")
    folders = [tmp_path / name if on_disk else None for name in ("alone", "together")]
    alone, together = (engines_of(model, Stores(folder=folder)) for folder in folders)
    pairs = [(one, other) for one, other in zip(alone, together, strict=True) if one.store is not None]
    assert pairs
    for batch in (BATCH, OTHER):
        counts = [one.fill(batch) for one, _ in pairs]
        assert pairs[0][1].fill_beside([other for _, other in pairs], batch) == counts
        assert sum(counts) > 0
        for one, other in pairs:
            assert one.key == other.key
            own, theirs = stored(one, batch), stored(other, batch)
            assert own.keys() == theirs.keys()
            assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_layers_run_once_for_all_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    model = frozen_model(frozen="embeddings")
    engines = engines_of(model, Stores())
    calls = [count_layer_calls(monkeypatch, model, layer) for layer in (0, 1)]
    engines[-1].fill_beside(engines, BATCH)
    assert [len(shapes) for shapes in calls] == [1, 1]


def test_only_what_a_store_lacks_is_computed() -> None:
    model = frozen_model(frozen="embeddings")
    engines = engines_of(model, Stores())
    engines[0].fill(BATCH)
    assert engines[0].fill_beside(engines, BATCH) == [0, 4, 4]
    assert [engine.store.rows for engine in engines if engine.store is not None] == [4, 4, 4]


def test_a_full_store_keeps_no_other_from_being_filled() -> None:
    model = frozen_model(frozen="embeddings")
    low, high = Engine(model, EngineSettings()), Engine(model, EngineSettings())
    for engine, freeze, budget in ((low, FREEZES[0], 0), (high, FREEZES[2], 1 << 20)):
        with fl.freeze(model, freeze):
            engine.check(BATCH)
            engine.use(Stores(budget))
    assert low.fill_beside([low, high], BATCH) == [0, 4]
