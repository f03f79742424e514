from __future__ import annotations

from tests.training.conftest import _on_this_machine, datasets_cache

__all__ = ["_on_this_machine", "datasets_cache"]
