"""What tests of sweeps share."""

import pytest

from specmd.policy import registry


@pytest.fixture
def own_registry(monkeypatch):
    """A registry of this test's own: what is added is gone afterwards."""
    found = dict(registry._registry())
    monkeypatch.setattr(registry, "_registry", lambda: found)
