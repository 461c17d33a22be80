from __future__ import annotations

import socket
from pathlib import Path

import pytest
from serving_world import World, make_world

from lyra_nli.errors import InputError, ModelError, StorageError
from lyra_nli.ml_server import nli
from lyra_nli.ml_server.main import _listen, create_app, serve
from lyra_nli.settings import Settings


def _at(settings: Settings, **server: object) -> Settings:
    changed = settings.ml_server.model_copy(update=server)
    return settings.model_copy(update={"ml_server": changed})


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_a_port_in_use_is_told_before_anything_is_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nli, "NLIService", None)  # would fail if the app were made
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError) as error:
            serve(_at(world.settings, port=port))

    assert str(port) in error.value.message
    assert "in use" in error.value.message
    assert "--port" in error.value.hint


@pytest.mark.parametrize("host", ["192.0.2.7", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_told(world: World, free_port: int, host: str) -> None:
    with pytest.raises(InputError, match="can't listen"):
        serve(_at(world.settings, host=host, port=free_port))


def test_a_base_that_can_not_be_had_ends_the_server_with_its_reason(
    tmp_path: Path, template: World, free_port: int
) -> None:
    world = make_world(tmp_path, like=template, fast_model=str(tmp_path / "nowhere"))

    with pytest.raises(ModelError, match="nowhere"):
        serve(_at(world.settings, port=free_port))
    with socket.create_server(("127.0.0.1", free_port)):
        pass  # the port is free again


def test_a_database_url_that_can_not_be_read_is_not_shown(world: World) -> None:
    storage = world.settings.storage.model_copy(update={"database_path": "post gres://me:secret@x"})
    with pytest.raises(StorageError) as error:
        create_app(world.settings.model_copy(update={"storage": storage}))
    assert "secret" not in str(error.value)


def test_answers_leave_at_once() -> None:
    with _listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
