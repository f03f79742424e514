from __future__ import annotations

import gc

import pytest
import torch

pytest.register_assert_rewrite("tests.training.beside", "tests.dropin.pairs")

from tests.training.conftest import heard  # noqa: E402

__all__ = ["heard"]


@pytest.fixture(autouse=True, scope="session")
def _imported_for_good() -> None:
    """Each Trainer collects garbage as it begins, which takes longer than a tiny training if it goes through torch."""
    import datasets  # noqa: F401
    import transformers.trainer  # noqa: F401

    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)
