from __future__ import annotations

from tests.training.conftest import datasets_cache, on_this_machine

__all__ = ["datasets_cache", "on_this_machine"]
