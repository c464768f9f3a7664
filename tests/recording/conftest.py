"""Fixtures of models to record."""

from __future__ import annotations

from typing import Any

import pytest
from recorded_families import FAMILIES, build


@pytest.fixture
def olmoe() -> Any:
    return build("olmoe")


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param
