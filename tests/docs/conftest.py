from __future__ import annotations

from tests.training.conftest import on_this_machine, datasets_cache

__all__ = ["on_this_machine", "datasets_cache"]
