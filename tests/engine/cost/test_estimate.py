"""The reckoning of a plan, from figures that are given here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import frostline as fl
from frostline.engine.cost.batch_rows import Rows
from frostline.engine.cost.choice import choose
from frostline.engine.cost.costs import Measured, Rates, Work
from frostline.engine.cost.estimate import cost_of, prefix_seconds, suffix_seconds
from frostline.engine.cost.machines import Speeds, from_figures, machine_named
from frostline.engine.cost.units import frost_line_of, unit_costs
from frostline.engine.settings import EngineSettings
from frostline.errors import SettingsError
from tests.models import tiny

if TYPE_CHECKING:
    from frostline.engine.cost.estimate import Cost
    from frostline.engine.cost.units import UnitCost

GB = 10**9
ROWS = Rows(
    rows=100,
    tokens=2000,
    squares=48_000,
    padded=3000,
    largest=400,
    largest_padded=500,
    batch_size=16,
    steps=7,
    counts=3,
)
SPEEDS = Speeds(
    how="given",
    source="measured",
    overhead=0.01,
    head=1e-4,
    last=1e-5,
    lowest=2e-5,
    layer=3e-5,
    embeddings=4e-6,
    fill_layer=1e-5,
    fill_last=2e-6,
    fill_embeddings=1e-6,
    anew=1.5,
    parameter=1e-9,
    check=0.1,
    check_fixed=0.5,
    check_trained=2.0,
    byte=1e-9,
    padded_forward=1e-5,
    padded_layer=3e-5,
    head_token_bytes=0.0,
    head_row_bytes=64.0,
    token_bytes=64.0,
    memory=Rates(GB, GB),
    disk=Rates(GB, GB),
)


def units_of(train_only: str | None = None) -> tuple[UnitCost, ...]:
    model = tiny("bert", num_hidden_layers=4)
    if train_only is not None:
        fl.train_only(model, train_only)
    return unit_costs(model)


def cost(units: tuple[UnitCost, ...], epochs: float = 4, **how: Any) -> Cost:
    keeps, half = how.pop("keeps", True), how.pop("is_half", False)
    settings = EngineSettings(**how)
    return cost_of(units, ROWS, epochs, SPEEDS, settings, keeps=keeps, is_half=half, free_memory=GB, free_disk=GB)


@pytest.mark.parametrize(
    ("train_only", "seconds"),
    [
        ("head", 0),
        ("layers[3], head", 1e-5),
        ("layers[2:], head", 3e-5),
        ("layers[1:], head", 6e-5),
        ("layers[:], head", 9e-5),
        (None, 9e-5 + 4e-6 + 1e-5),  # and the lowest layer's gradient on to the embeddings
    ],
)
def test_a_layer_costs_what_it_costs_in_its_place(train_only: str | None, seconds: float) -> None:
    units = units_of(train_only)
    assert suffix_seconds(units, frost_line_of(units) or 0, SPEEDS) == pytest.approx(seconds)


def test_frozen_layers_on_top_spare_the_gradients_of_weights_only() -> None:
    units = units_of("layers[0]")
    line = frost_line_of(units) or 0
    whole = units_of("layers[:], head")
    assert suffix_seconds(units, line, SPEEDS) == pytest.approx(
        suffix_seconds(whole, line, SPEEDS) - (1e-5 + 2e-5 + 3e-5) / 3
    )


def test_the_parts_of_the_time_add_up() -> None:
    found = cost(units_of("layers[3], pooler, head"), store="memory")
    times = found.times
    assert times.total == pytest.approx(times.start + times.fill + 4 * times.epoch + times.end)
    prefix = prefix_seconds(units_of("layers[3], pooler, head"), 4, SPEEDS)
    assert prefix == pytest.approx(3e-5 + 1e-6)
    assert times.fill == pytest.approx(2000 * prefix + 2000 * 64 / GB)
    trains = sum(unit.trainable_parameters for unit in units_of("layers[3], pooler, head"))
    again = 2000 * 64 / GB
    assert times.epoch == pytest.approx(again + (2000 * 1e-5 + 100 * 1e-4 + 7 * (0.01 + trains * 1e-9)) * 1.01)


def test_without_a_store_the_frozen_part_is_computed_in_each_epoch() -> None:
    units = units_of("layers[3], pooler, head")
    off, kept = cost(units, store="off"), cost(units, store="memory")
    assert off.times.fill == 0
    assert off.times.epoch - kept.times.epoch == pytest.approx(2000 * 3.1e-5 * 1.5 - 2000 * 64 / GB)
    assert off.memory.store == 0
    assert kept.memory.store == 2000 * 64


def test_the_break_even_is_that_of_a_run() -> None:
    units = units_of("layers[3], pooler, head")
    found = cost(units)
    measured = Measured(3.1e-5, 3.1e-5 * 1.5, 64.0, 0.0, Rates(GB, GB), Rates(GB, GB))
    alike = choose(EngineSettings(), Work(rows=100, tokens=2000, passes=4), measured, GB, GB)
    assert found.choice is not None
    assert found.choice.where == alike.where
    assert found.choice.break_even == pytest.approx(alike.break_even)
    even = found.choice.break_even
    assert even is not None
    # At the break-even both take as long.
    kept, off = (cost(units, even, store=where) for where in ("memory", "off"))
    assert kept.times.total == pytest.approx(off.times.total)


def test_the_head_alone_stores_a_row_s_value_where_it_reads_one_position() -> None:
    assert cost(units_of("pooler, head"), store="memory").memory.store == 100 * 64


def test_the_last_layer_of_the_prefix_may_run_for_one_position() -> None:
    units = units_of("pooler, head")
    assert prefix_seconds(units, frost_line_of(units) or 0, SPEEDS) == pytest.approx(3 * 1e-5 + 2e-6 + 1e-6)


def test_what_follows_train_is_not_stored() -> None:
    found = cost(units_of("layers[3], head"), keeps=False)
    assert (found.choice, found.where, found.memory.store) == (None, "nowhere", 0)


def test_a_store_on_disk_takes_no_memory() -> None:
    memory = cost(units_of("layers[3], head"), store="disk").memory
    assert (memory.store, memory.disk) == (0, 2000 * 64)


def test_the_parts_of_the_memory_add_up_and_grow_with_what_trains() -> None:
    few, more, whole = (cost(units_of(plan)).memory for plan in ("head", "layers[2:], head", None))
    for memory in (few, more, whole):
        values = memory.to_dict()
        parts = ("weights", "gradients", "optimizer", "activations", "working", "store")
        assert values["peak"] == sum(values[part] for part in parts)
    assert few.weights == more.weights == whole.weights
    for part in ("gradients", "optimizer", "activations"):
        assert getattr(few, part) < getattr(more, part) < getattr(whole, part)


def test_a_plan_costs_transformers_trainer_the_forward_of_all_layers_padded() -> None:
    head, whole = cost(units_of("pooler, head")), cost(units_of())
    trains = sum(unit.trainable_parameters for unit in units_of("pooler, head"))
    assert head.trainer_seconds == pytest.approx(4 * (3000 * 4e-5 + 7 * (0.01 + trains * 1e-9)))
    assert whole.trainer_seconds > head.trainer_seconds + 4 * 3000 * 4 * 2e-5


def test_figures_of_a_machine() -> None:
    units = units_of()
    speeds = from_figures(units, rate=1e9, bandwidth=1e10, length=20, element_bytes=4, how="given")
    layer = next(unit for unit in units if unit.kind == "layer")
    assert speeds.fill_layer == pytest.approx((layer.flops + 20 * layer.attention_flops) / 1e9)
    assert speeds.layer == pytest.approx(3 * speeds.fill_layer)
    faster = from_figures(units, rate=2e9, bandwidth=1e10, length=20, element_bytes=4, how="given")
    assert replace(faster, how="") != replace(speeds, how="")
    assert faster.layer == pytest.approx(speeds.layer / 2)


def test_a_machine_by_name() -> None:
    assert machine_named("A100-80GB").half == 312e12
    with pytest.raises(
        SettingsError,
        match=r"device is 'a1000', of which no figures are known; known are cpu, which is this machine.s, and t4, ",
    ):
        machine_named("a1000")
