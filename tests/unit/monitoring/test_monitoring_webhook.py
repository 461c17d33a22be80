"""Against a real HTTP server on this machine."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from lyra_nli.monitoring import webhook

if TYPE_CHECKING:
    from conftest import Receiver


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "WAIT_SECONDS", 0.01)


def test_it_is_told(receiver: Receiver) -> None:
    assert webhook.post(receiver.url, {"text": "über"}) == ""
    assert receiver.got == [{"text": "über"}]


def test_a_busy_server_is_asked_again(receiver: Receiver) -> None:
    receiver.answers = [503, 429]
    assert webhook.post(receiver.url, {}) == ""
    assert len(receiver.got) == 3


def test_it_gives_up_and_says_why(receiver: Receiver) -> None:
    receiver.answers = [500] * 9
    assert webhook.post(receiver.url, {}) == "it answered 500"
    assert len(receiver.got) == webhook.ATTEMPTS


def test_a_refusal_is_not_repeated(receiver: Receiver) -> None:
    receiver.answers = [404]
    assert webhook.post(receiver.url, {}) == "it answered 404"
    assert len(receiver.got) == 1


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert webhook.post(f"http://127.0.0.1:{port}/secret", {}) == "ConnectError"


@pytest.mark.parametrize("url", ["ftp://example.org", "nonsense", ""])
def test_no_url(url: str) -> None:
    assert webhook.post(url, {}) in ("UnsupportedProtocol", "InvalidURL")
