"""The look whether the hub is in reach; no test here leaves this machine."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest
from huggingface_hub import constants

from frostline.base import hub

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def listening() -> Iterator[str]:
    """The address of a server that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def test_a_server_that_answers_is_in_reach(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", listening)
    assert hub.hub_in_reach()


def test_a_closed_port_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub.hub_in_reach()


def test_offline_by_setting_is_not(listening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", listening)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.hub_in_reach()


def test_behind_a_proxy_only_the_proxy_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy"})
    assert hub.hub_in_reach()
