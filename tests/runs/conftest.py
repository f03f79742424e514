from __future__ import annotations

from tests.training.conftest import (
    on_this_machine,
    batch,
    bert,
    datasets_cache,
    gpt2,
    heard,
    make,
    quick_bert,
    table,
)

__all__ = ["on_this_machine", "batch", "bert", "datasets_cache", "gpt2", "heard", "make", "quick_bert", "table"]
