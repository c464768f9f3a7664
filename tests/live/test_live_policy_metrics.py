"""A live cache publishes what its policies say of themselves, as its simulation does."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_models import generate, offload, prompt, tiny

from specmd import simulate
from specmd.errors import SpecmdError
from specmd.policy.registry import add_plugin, forget

TEXT = prompt(1, 12, vocab=2048)
MINE = '''
"""Mine."""
from specmd.policy import policy


@policy("mine", source="test")
class Mine:
    @classmethod
    def create(cls, world):
        return cls()

    def __init__(self):
        self.uses, self.there = 0, set()

    def on_insert(self, key, pool, event):
        self.there.add(key)

    def on_use(self, key, pool, event):
        self.uses += 1

    def on_evict(self, key, pool, event):
        self.there.discard(key)

    def rank(self, key, event):
        return key % 7

    def metrics(self):
        return {"uses": self.uses}

    def finished(self, core):
        return "" if len(self.there) == WANTED else f"{len(self.there)} are there"
'''


@pytest.mark.parametrize("right", [True, False])
def test_it_says_what_the_simulation_says(tmp_path: Path, right: bool) -> None:
    path = tmp_path / "mine.py"
    path.write_text(MINE.replace("WANTED", "24" if right else "23"))
    found = add_plugin(path)
    try:
        with offload(tiny(), "mine", 24, deterministic=True, log_routing=True) as cache:
            generate(tiny(), 8, **TEXT)
        if not right:
            with pytest.raises(SpecmdError, match="books do not add up: 24 are there"):
                _ = cache.policy_metrics
            return
        run = simulate(cache.trace, "mine", 24, bounds=False)
        assert cache.policy_metrics == run.policy_metrics
        assert run.policy_metrics["evict mine"]["uses"] == run.metrics["hits"]
    finally:
        forget(found)
