"""A unit's name says where it stands."""

from __future__ import annotations

import pytest

import frostline as fl
from frostline.anatomy.placement import Place, place_named
from tests.models import tiny


@pytest.mark.parametrize("kind", ["bert", "t5", "bart", "llama", "funnel"])
def test_every_unit_is_placed_by_its_name(kind: str) -> None:
    for unit in fl.ModelMap.of(tiny(kind, meta=True)).units:
        assert place_named(unit.name) == Place(unit.kind, unit.stack, unit.index)


def test_what_is_no_units_name() -> None:
    assert place_named("unplaced") == Place("other", "", None)
