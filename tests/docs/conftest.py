from __future__ import annotations

from tests.training.conftest import datasets_cache, little_is_measured, on_this_machine

__all__ = ["datasets_cache", "little_is_measured", "on_this_machine"]
