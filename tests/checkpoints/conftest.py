from __future__ import annotations

from tests.training.conftest import _on_this_machine, bert, datasets_cache, gpt2

__all__ = ["_on_this_machine", "bert", "datasets_cache", "gpt2"]
