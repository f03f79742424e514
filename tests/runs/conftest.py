from __future__ import annotations

from tests.training.conftest import (
    batch,
    bert,
    datasets_cache,
    gpt2,
    heard,
    little_is_measured,
    make,
    on_this_machine,
    quick_bert,
    table,
)

__all__ = [
    "batch",
    "bert",
    "datasets_cache",
    "gpt2",
    "heard",
    "little_is_measured",
    "make",
    "on_this_machine",
    "quick_bert",
    "table",
]
