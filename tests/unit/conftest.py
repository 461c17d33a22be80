"""One tiny base of each architecture, loaded once; torch is imported only where it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lyra_nli.models.base import Base

ARCHITECTURES = ("deberta-v2", "bert", "roberta")


@pytest.fixture(scope="session")
def bases(tmp_path_factory) -> dict[str, Base]:
    """Architecture -> base; no test may change one."""
    from tiny_models import make_tiny_model

    from lyra_nli.models.base import load_base

    folder = tmp_path_factory.mktemp("bases")
    return {name: load_base(str(make_tiny_model(folder / name, name))) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def base(request, bases) -> Base:
    """Each of the three bases in turn."""
    return bases[request.param]


@pytest.fixture(scope="session")
def deberta(bases) -> Base:
    """The architecture that Lyra uses."""
    return bases["deberta-v2"]
