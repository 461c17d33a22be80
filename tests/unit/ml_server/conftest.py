from __future__ import annotations

from pathlib import Path

import pytest
from serving_world import World, make_world


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("template"))


@pytest.fixture
def world(tmp_path: Path, template: World) -> World:
    return make_world(tmp_path, like=template)
