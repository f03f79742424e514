"""What the zoo's tests name type by type, and its page, is of one version of transformers; the rest holds for all."""

from __future__ import annotations

import re

import pytest
import transformers

from tests.zoo.page import PAGE

_NAMED = {
    "test_as_text",
    "test_coverage_is_what_was_promised",
    "test_every_depth_is_replayed_but_those_named",
    "test_exceptions_are_few_and_registered",
    "test_experts_are_chosen_from",
    "test_hybrids_have_both_kinds_of_layers",
    "test_padding_is_real_and_shows_only_where_noted",
    "test_padding_is_spared_but_in_those_named",
    "test_parts_that_are_easily_misplaced",
    "test_the_last_layer_runs_for_one_position_in_those_named",
    "test_the_page_is_as_the_zoo_makes_it_today",
    "test_the_page_says_what_was_admitted",
    "test_there_is_a_row_for_every_type",
    "test_those_with_conversions_are_named",
    "test_what_is_pooled_is_told_apart",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them on another version than that of the page."""
    written = re.search(r"transformers (\d+\.\d+)", PAGE.read_text(encoding="utf-8"))
    if written is not None and transformers.__version__.startswith(f"{written[1]}."):
        return
    skip = pytest.mark.skip(reason="it names what another version of transformers does")
    for item in items:
        if item.path.parent.name == "zoo" and getattr(item, "originalname", item.name) in _NAMED:
            item.add_marker(skip)
