"""What measuring finds, and that it leaves nothing behind."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from frostline.engine.cost.measurement import calibrate, extrapolated
from frostline.engine.engine import Engine
from frostline.engine.fast_paths import FastPaths
from frostline.engine.replay.replay import NotReplayable
from frostline.engine.runner import Runner
from frostline.engine.settings import EngineSettings
from frostline.evidence.proof.fingerprint import fingerprint
from frostline.freezing.freeze import freeze
from frostline.store.place import StorePlace
from tests.models import modes, tiny

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from frostline.engine.cost.costs import Measured


def inputs(*lengths: int) -> dict[str, torch.Tensor]:
    """Texts of these lengths, padded to the longest."""
    mask = torch.tensor([[place < length for place in range(max(lengths))] for length in lengths])
    ids = torch.arange(mask.numel()).reshape(mask.shape) % 40 + 3
    return {"input_ids": ids * mask, "attention_mask": mask.long()}


def measured(model: nn.Module, folder: Path | None, settings: EngineSettings | None = None, **how: Any) -> Measured:
    filling, step = inputs(6, 6, 6, 7, 7), inputs(*how.get("step", (9, 3, 6, 2)))
    engine = Engine(model, settings or EngineSettings())
    with engine.active():
        engine.check(step)
        found = engine.measure(filling, step, folder)
    assert found is not None
    return found


def random_states() -> tuple[Any, ...]:
    """What torch, Python and NumPy draw next."""
    return torch.get_rng_state().tolist(), random.getstate(), str(np.random.get_state())  # noqa: NPY002


@pytest.fixture
def bert() -> nn.Module:
    """A tiny BERT of which one layer, pooler and head train."""
    model = tiny("bert")
    freeze(model, "embeddings, layers[0]")
    return model


def test_all_figures_are_positive(bert: nn.Module, tmp_path: Path) -> None:
    found = measured(bert, tmp_path)
    assert found.disk is not None
    rates = (found.memory.write, found.memory.read, found.disk.write, found.disk.read)
    assert min(found.fill, found.anew, found.seconds, *rates) > 0
    assert found.fill < 1
    assert (found.token_bytes, found.row_bytes) == (16 * 4, 0)


def test_a_smaller_dtype_takes_fewer_bytes(bert: nn.Module) -> None:
    assert measured(bert, None, EngineSettings(store_dtype="bf16")).token_bytes == 16 * 2


def test_where_only_the_head_trains_bytes_are_per_row() -> None:
    model = tiny("bert")
    freeze(model, "backbone")
    found = measured(model, None)
    assert (found.token_bytes, found.row_bytes) == (0, 16 * 4)


def test_model_and_random_states_stay_as_they_are(bert: nn.Module, tmp_path: Path) -> None:
    before, mode = fingerprint(bert), modes(bert)
    versions = [parameter._version for parameter in bert.parameters()]
    states = random_states()
    measured(bert, tmp_path)
    assert random_states() == states
    assert fingerprint(bert) == before
    assert modes(bert) == mode
    assert [parameter._version for parameter in bert.parameters()] == versions
    assert all(parameter.grad is None for parameter in bert.parameters())
    assert bert.forward.__func__ is type(bert).forward  # type: ignore[attr-defined]


def test_nothing_stays_on_disk_and_a_folder_need_not_be_there(bert: nn.Module, tmp_path: Path) -> None:
    assert measured(bert, tmp_path / "stores" / "of mine").disk is not None
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_has_no_rates(
    bert: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any, **_options: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    assert measured(bert, tmp_path).disk is None


def test_what_a_store_of_an_earlier_run_holds_is_told(bert: nn.Module, tmp_path: Path) -> None:
    place = StorePlace(tmp_path, 10**6)
    engine, earlier = Engine(bert, EngineSettings()), Engine(bert, EngineSettings())
    earlier.check(inputs(3, 5))
    engine.check(inputs(3, 5))
    assert engine.key is not None
    assert not place.holds(engine.key)
    earlier.use(place)
    assert earlier.fill(inputs(3, 5)) == 2
    assert earlier.store is not None
    size = earlier.store.bytes_used
    earlier.close()
    assert place.holds(engine.key)
    share, held = engine.held(inputs(3, 5), place)
    assert share == 1
    assert size <= held < 2 * size  # and what opening it wrote
    ids, mask = inputs(3, 5).values()
    both = {"input_ids": torch.cat([ids, (ids + 1) * mask]), "attention_mask": torch.cat([mask, mask])}
    assert engine.held(both, place)[0] == 0.5
    assert engine.store is None  # it was looked at only


def test_rows_that_steps_store_are_not_sorted(bert: nn.Module) -> None:
    step = inputs(9, 3, 6, 2)
    engine = Engine(bert, EngineSettings())
    with engine.active():
        engine.check(step)
        found = engine.measure(step, step, None)
    assert found is not None
    assert found.fill == found.anew


def test_without_replay_nothing_is_measured() -> None:
    model = tiny("bert")
    engine = Engine(model, EngineSettings())
    batch = inputs(3, 5)
    with engine.active():
        assert engine.measure(batch, batch, None) is None  # nothing was tried yet
        engine.check(batch)
        assert engine.measure(batch, batch, None) is None  # everything trains
    with pytest.raises(NotReplayable, match="nothing is replayed"):
        calibrate(Runner(model, model.forward), FastPaths(), None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("few", "tokens"), [(26, 400), (13, 104), (104, 2048)])
def test_a_batch_is_reckoned_from_two_of_its_parts(few: int, tokens: int) -> None:
    def run(size: int) -> tuple[int, float]:
        return size, 0.03 + 0.001 * size

    own = run(tokens)[1] / tokens
    assert extrapolated(run(104), run(few), tokens) == pytest.approx(own if few < 104 else run(104)[1] / 104)


@pytest.mark.parametrize("few", [1e-6, 0.0999, 0.2])
def test_times_that_chance_has_mixed_up_give_at_most_twice_the_speed_that_was_seen(few: float) -> None:
    assert 0.1 / 104 / 2 <= extrapolated((104, 0.1), (26, few), 10**9) <= 0.1 / 104


def test_it_takes_well_under_a_second_on_a_tiny_model(bert: nn.Module, tmp_path: Path) -> None:
    assert measured(bert, tmp_path, step=tuple(range(2, 34))).seconds < 2
