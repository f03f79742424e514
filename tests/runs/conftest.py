from __future__ import annotations

from tests.training.conftest import (
    _on_this_machine,
    batch,
    bert,
    datasets_cache,
    gpt2,
    heard,
    make,
    quick_bert,
    table,
)

__all__ = ["_on_this_machine", "batch", "bert", "datasets_cache", "gpt2", "heard", "make", "quick_bert", "table"]
