from __future__ import annotations

import gc
from collections import Counter
from pathlib import Path

import pytest
import torch

pytest.register_assert_rewrite("tests.training.beside", "tests.dropin.pairs")

from tests.training.conftest import heard, little_is_measured  # noqa: E402

__all__ = ["heard", "little_is_measured"]

_FOLDER = Path(__file__).parent


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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave three of four parameter sets of a function to the slow tests: more patterns of the same kind."""
    sets: Counter[tuple[object, str]] = Counter()
    for item in items:
        if isinstance(item, pytest.Function) and item.path.is_relative_to(_FOLDER):
            function = (item.path, item.originalname)
            if sets[function] % 4:
                item.add_marker(pytest.mark.slow)
            sets[function] += 1
