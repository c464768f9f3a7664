"""Each policy of a run sees what it declared, whatever the other one declared beside it."""

import pytest

from specmd.policy import registry
from specmd.simulation.simulate import simulate
from specmd.trace import synthetic
from specmd.trace.synthesis import with_scores

SPIES = '''
"""Note what is on the event, though nothing was declared."""
from specmd.policy import policy

SEEN = set()  # (axis, what was there)


def look(axis, told, *names):
    SEEN.update((axis, name) for name in names if len(getattr(told, name)) > 0)


@policy("spy", source="test")
class Evicting:
    @classmethod
    def create(cls, world):
        look("evict", world, "popularity")
        return cls()

    def on_event(self, event):
        look("evict", event, "gates", "next_use")

    def rank(self, key, event):
        return 0.0


@policy("weighing", source="test", needs=["weights"])
class Weighing(Evicting):
    pass


@policy("spy", axis="prefetch", source="test")
class Prefetching:
    @classmethod
    def create(cls, world):
        look("prefetch", world, "popularity")
        return cls()

    def predict(self, event, outlook, proposals):
        look("prefetch", event, "gates", "next_use")
        look("prefetch", outlook, "lookahead", "renormalised", "logits", "draft", "ids", "request")


@policy("deciding", axis="prefetch", source="test", needs=["choices"])
class Deciding(Prefetching):
    pass


@policy("weighing", axis="prefetch", source="test", needs=["weights"])
class WeighingAhead(Prefetching):
    pass
'''


@pytest.fixture
def seen(tmp_path):
    path = tmp_path / "spies.py"
    path.write_text(SPIES)
    entry = registry.add_plugin(path)[0]
    found = entry.cls.create.__func__.__globals__["SEEN"]
    sizes = {"num_requests": 1, "prompt_length": 3, "decode_length": 6, "lookahead_depth": 1}
    trace, other = (with_scores(synthetic(**sizes, seed=seed)) for seed in (1, 2))

    def beside(**options):
        found.clear()
        simulate(trace, capacity="25%", bounds=False, interpreted=True, training=other, **options)
        return set(found)

    return beside


def test_an_eviction_policy_beside_the_oracle_does_not_see_the_future(seen):
    assert seen(evict="spy", prefetch="oracle") == set()


def test_an_eviction_policy_beside_a_prefetcher_with_weights_does_not_see_them(seen):
    assert seen(evict="spy", prefetch="weighing") == {("prefetch", "gates")}


def test_a_prefetcher_beside_belady_does_not_see_the_future(seen):
    assert seen(evict="belady", prefetch="spy") == set()


def test_a_prefetcher_beside_a_policy_with_weights_does_not_see_them(seen):
    assert seen(evict="weighing", prefetch="spy") == {("evict", "gates")}


def test_nobody_sees_a_training_trace_that_was_not_asked_for(seen):
    assert seen(evict="spy", prefetch="static_top") == set()
    assert seen(evict="static", prefetch="spy") == set()


def test_nobody_sees_scores_drafts_or_choices_that_were_not_asked_for(seen):
    assert seen(evict="spy", prefetch="spy") == set()
    assert seen(evict="spy", prefetch="deciding") == {("prefetch", "ids"), ("prefetch", "request")}


def test_what_was_declared_is_seen(seen):
    both = {("evict", "gates"), ("prefetch", "gates")}
    assert seen(evict="weighing", prefetch="weighing") == both
