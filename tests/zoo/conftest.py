"""What the zoo's tests name type by type, and its page, is of one version of transformers; the rest holds for all."""

from __future__ import annotations

import pytest

from tests.zoo.page import is_of_this_version

_NAMED = {
    "test_all_is_admitted_but_what_is_named",
    "test_as_text",
    "test_coverage_is_what_was_promised",
    "test_exceptions_are_few_and_registered",
    "test_experts_are_chosen_from",
    "test_hybrids_have_both_kinds_of_layers",
    "test_padding_is_real_and_shows_only_where_noted",
    "test_parts_that_are_easily_misplaced",
    "test_the_page_has_a_cell_for_each",
    "test_the_page_is_as_the_zoo_makes_it_today",
    "test_there_is_a_row_for_every_type",
    "test_those_with_conversions_are_named",
    "test_what_is_pooled_is_told_apart",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip them on another version than that of the page."""
    if is_of_this_version():
        return
    skip = pytest.mark.skip(reason="it names what another version of transformers does")
    for item in items:
        if item.path.parent.name == "zoo" and getattr(item, "originalname", item.name) in _NAMED:
            item.add_marker(skip)
