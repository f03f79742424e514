from __future__ import annotations

import pytest
import torch

from tests.training.conftest import datasets_cache, on_this_machine

__all__ = ["datasets_cache", "on_this_machine"]


@pytest.fixture(autouse=True)
def _cuda() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
