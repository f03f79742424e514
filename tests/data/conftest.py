from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from frostline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

GERMAN = "Schöne Grüße aus Köln, sagt Frau Müller-Lüdenscheidt 🎉"
CHINESE = "这部电影真的很好看。我非常喜欢。"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gives each test a cache of ``datasets`` of its own; the setting is read at every use."""
    import datasets

    folder = tmp_path_factory.mktemp("datasets-cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", folder / "downloads")
    return folder


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Writes a file from text or bytes and returns its path."""

    def _write(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return _write


@pytest.fixture
def data_error() -> Callable[..., AbstractContextManager[Any]]:
    """Expects a DataError of one or two lines that holds all the given phrases."""
    from contextlib import contextmanager

    @contextmanager
    def _expect(*phrases: str) -> Iterator[Any]:
        with pytest.raises(DataError) as caught:
            yield caught
        message = str(caught.value)
        assert 1 <= len(message.splitlines()) <= 2, message
        assert message.isprintable() or "\n" in message
        for phrase in phrases:
            assert phrase in message, message

    return _expect
