from __future__ import annotations

import pytest
import torch

from tests.training.conftest import on_this_machine, datasets_cache

__all__ = ["on_this_machine", "datasets_cache"]


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
