from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from frostline.base import hub
from frostline.engine.cost import measurement
from tests.training import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from transformers import PreTrainedModel

    from tests.training.pretrained import Batch


@pytest.fixture(scope="session")
def datasets_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("datasets-cache")


@pytest.fixture(autouse=True)
def on_this_machine(datasets_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is a closed port, no cache but that of the tests is used, and one thread computes."""
    import datasets
    from huggingface_hub import constants

    torch.set_num_threads(1)
    monkeypatch.setattr(constants, "ENDPOINT", tiny.CLOSED_PORT)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", datasets_cache)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", datasets_cache / "downloads")


@pytest.fixture(autouse=True)
def little_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the prefix costs is measured on a few rows, once: where tests look at it, they give it."""
    monkeypatch.setattr(measurement, "_LONGEST", 0)
    monkeypatch.setattr(measurement, "_LONG_ENOUGH", 0)
    monkeypatch.setattr(measurement, "_TRIAL_ROWS", 32)


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pretrained BERT without a head; it is not to be changed."""
    return tiny.save_bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def quick_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whose wide initial weights let it tell the texts apart within a few steps."""
    return tiny.save_bert(tmp_path_factory.mktemp("models") / "quick", initializer_range=0.3)


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A decoder whose tokenizer has no padding token."""
    return tiny.save_base(tmp_path_factory.mktemp("models") / "gpt2", tiny.gpt2_config(), tiny.byte_pairs())


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """24 rows of text and label."""
    return tiny.write_csv(tmp_path / "rows.csv", tiny.rows())


@pytest.fixture
def heard(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What Frostline tells, down to its notices."""
    logger = logging.getLogger("frostline")
    handlers, level, propagate = logger.handlers, logger.level, logger.propagate
    logger.handlers, logger.propagate = [caplog.handler], False
    logger.setLevel(logging.INFO)  # which forgets the answers of `isEnabledFor`, as setting `level` would not
    yield caplog
    logger.handlers, logger.propagate = handlers, propagate
    logger.setLevel(level)


@pytest.fixture
def make(bert: Path) -> Callable[[], PreTrainedModel]:
    """Loads a classifier, each time with the same values."""

    def _make() -> PreTrainedModel:
        torch.manual_seed(3)
        model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(bert)
        return model

    return _make


@pytest.fixture
def batch() -> Batch:
    """Twelve rows of nine tokens."""
    draw = torch.Generator().manual_seed(1)
    return [
        {"input_ids": torch.randint(5, 160, (9,), generator=draw), "labels": torch.tensor(row % 2)} for row in range(12)
    ]
