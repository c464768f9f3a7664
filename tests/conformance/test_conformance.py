"""The conformance suite: every registered policy passes; a broken one fails the right check."""

import re
import textwrap
import typing
from pathlib import Path

import pytest

from specmd.conformance import patience
from specmd.conformance.cases import PROPOSALS, Case, equipped, small_trace, watch_eviction
from specmd.conformance.suite import COMPILED, HOOKS, NEEDS, REPRODUCIBLE, check_policy
from specmd.conformance.watch import COUNTERS, FETCHES, RANKS, UNTOUCHED, VICTIMS
from specmd.errors import SpecmdError
from specmd.policy import registry

VARIANTS = {
    ("evict", "least_stale"): [{"order": order} for order in ("cycle", "fifo", "layer", "recent")],
    ("evict", "lfu"): [{}, {"resident": True}, {"ties": "key"}, {"aging": 2, "ties": "key"}],
    ("evict", "clock"): [{}, {"bits": 3}],
    ("evict", "gdsf"): [{}, {"cost": "even"}],
    ("evict", "hyperbolic"): [{}, {"sample": 2}],
    ("evict", "lecar"): [{}, {"rate": 1.0}],
    ("evict", "lru_k"): [{}, {"k": 1}, {"k": 4, "ghosts": 1}],
    ("evict", "two_q"): [{}, {"first": 0.9, "ghosts": 1.0}],
    ("evict", "w_tinylfu"): [{}, {"window": 0.3}],
    ("evict", "belady"): [{}, {"bypass": True}],
    ("evict", "dali"): [{}, {"window": 12, "hot": 0.2}],
    ("evict", "gate_ema"): [{}, {"fade": True}],
    ("evict", "heat"): [{}, {"hot": 0}, {"hot": 1}],
    ("evict", "hot_tail"): [{}, {"share": 0.0}, {"share": 1.0}],
    ("evict", "freq_threshold"): [{}, {"window": 3, "share": 0.5}],
    ("evict", "hobbit"): [{}, {"lru": 0.0, "fld": 0.5}],
    ("evict", "hysteresis"): [{}, {"bypass": False}, {"ratio": 0.5, "dwell": 2, "cap": 1}],
    ("evict", "static"): [
        {"choice": choice} for choice in ("global_freq", "layer_quota", "rank_weighted", "coverage")
    ],
    ("evict", "tec"): [{}, {"window": 1}],
    ("evict", "layer_distance"): [{}, {"ties": "frequency"}],
    ("evict", "slru"): [{}, {"protected": 0.3}],
    ("evict", "s3fifo"): [{}, {"small": 0.5, "move": 1}, {"warm": True}],
    ("evict", "lrfu"): [{}, {"decay": 1.0}, {"resident": False}],
    ("prefetch", "oracle"): [{}, {"depth": 6, "recall": 0.7, "extra": 2}],
    ("prefetch", "next_gate"): [{}, {"depth": 2, "width": 5}],
    ("prefetch", "prev_token"): [{}, {"depth": 3, "width": 1}],
    ("prefetch", "static_top"): [{}, {"depth": 3, "width": 8}],
    ("prefetch", "random"): [{}, {"depth": 3, "width": 4}],
    ("prefetch", "next_gate_renormalised"): [{}, {"depth": 2, "width": 5}],
    ("prefetch", "score_threshold"): [{}, {"depth": 2, "tau": 0.2}],
    ("prefetch", "cumulative"): [{}, {"depth": 2, "p": 1.0}],
    ("prefetch", "co_activation"): [{}, {"depth": 3, "width": 8, "threshold": 0.3}],
    ("prefetch", "ema"): [{}, {"depth": 5, "width": 4}],
    ("prefetch", "activation_matrix"): [{}, {"depth": 3, "width": 8, "cap": 2}],
    ("prefetch", "expert_map"): [{}, {"depth": 3, "cap": 2}],
    ("prefetch", "draft"): [{}, {"depth": 3, "cutoff": 2}],
    ("prefetch", "shuffled"): [{}, {"of": "oracle:depth=2;recall=0.5"}],
}


def variants(entry):
    """Return the values a policy is checked with: every choice of every parameter, one by one."""
    found = VARIANTS.get((entry.axis, entry.name), [{}]).copy()
    hints = typing.get_type_hints(entry.cls.create)
    for name, parameter in entry.parameters.items():
        kind = hints[name]
        choices = (True, False) if kind is bool else typing.get_args(kind)
        if kind is bool or typing.get_origin(kind) is typing.Literal:
            seen = {values.get(name, parameter.default) for values in found}
            found += [{name: choice} for choice in choices if choice not in seen]
    return found


CASES = [
    pytest.param(entry, values, id=f"{entry.axis}-{entry.name}-{values or ''}")
    for entry in registry.entries()
    for values in variants(entry)
]


@pytest.mark.parametrize(("entry", "values"), CASES)
def test_every_registered_policy_passes(entry, values):
    findings = check_policy(entry, **values)
    assert findings
    assert [finding for finding in findings if not finding.passed] == []


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """Register a plug-in given as source text; gone after the test."""
    found = dict(registry._registry())
    monkeypatch.setattr(registry, "_registry", lambda: found)

    def add(source):
        path = tmp_path / "mine.py"
        path.write_text(PREAMBLE + textwrap.dedent(source))
        return registry.add_plugin(path)[0]

    return add


PREAMBLE = '''"""Mine."""
import random
from collections import OrderedDict
from typing import NamedTuple

import numpy as np

from specmd.policy import *


class Ordered:
    """LRU of Python objects, to be broken."""

    def __init__(self):
        self.order = OrderedDict()

    @classmethod
    def create(cls, world):
        return cls()

    def on_use(self, key, pool, event):
        self.order.move_to_end(key)

    def on_insert(self, key, pool, event):
        self.order[key] = None

    def on_prefetch(self, key, pool, event):
        self.order[key] = None

    def on_evict(self, key, pool, event):
        del self.order[key]

    def victim(self, incoming, pool, cache, event):
        return next((key for key in self.order if may_leave(cache, pool, key)), None)


class Ranked:
    """Nothing but ranks, to be broken."""

    @classmethod
    def create(cls, world):
        return cls()


class Listed(NamedTuple):
    """FIFO over lists, to be broken."""

    arrival: Lists

    @classmethod
    def create(cls, world):
        return cls(make_lists(world.num_keys, world.pools))

    def on_insert(self, key, pool, event):
        push_front(self.arrival, pool, key)

    def on_prefetch(self, key, pool, event):
        push_front(self.arrival, pool, key)

    def on_evict(self, key, pool, event):
        unlink(self.arrival, key)

    def victim(self, incoming, pool, core, event):
        return last_evictable(self.arrival, pool, core)

'''


def failed(entry):
    return {finding.name: finding.detail for finding in check_policy(entry) if not finding.passed}


@pytest.mark.parametrize("base", ["Ordered", "Listed"])
def test_sound_plugins_of_both_forms_pass(plugin, base):
    entry = plugin(
        f"""
        @policy("mine", source="test", compiled={base == "Listed"})
        class Mine({base}):
            pass
        """
    )
    assert failed(entry) == {}


def test_the_policies_of_the_documentation_pass(tmp_path, plugin):
    text = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text("utf-8")
    found = re.findall(r"^<!-- file: (\S+) -->\n+```python\n(.*?)^```$", text, re.M | re.S)
    assert len(found) == 3
    for name, source in found:
        (tmp_path / name).write_text(source)
        (entry,) = registry.add_plugin(tmp_path / name)
        assert failed(entry) == {}, name


def test_a_plugin_that_does_not_compile_is_told_in_a_line(plugin):
    entry = plugin(
        """
        @policy("mine", source="test", compiled=True)
        class Mine(NamedTuple):
            pool_of: IntArray
            @classmethod
            def create(cls, world):
                return cls(np.zeros(1, np.int64))
            def rank(self, key, event):
                return float(str(key)[:3])
        """
    )
    found = failed(entry)
    assert list(found) == [COMPILED]
    assert "mine.py:" in found[COMPILED]
    assert found[COMPILED].count("\n") == 0


COMPILABLE = ("Listed", "NamedTuple")
BROKEN = {
    "evicts what is held": (
        "Listed",
        VICTIMS,
        "may not leave now",
        """
        def victim(self, incoming, pool, core, event):
            return back(self.arrival, pool)
        """,
    ),
    "evicts what is held, as an object": (
        "Ordered",
        VICTIMS,
        "may not leave now",
        """
        def victim(self, incoming, pool, cache, event):
            return next(iter(self.order), None)
        """,
    ),
    "forgets on_evict": (
        "Listed",
        VICTIMS,
        "is not resident",
        """
        def on_insert(self, key, pool, event):
            if self.arrival.next[key] == key:
                push_front(self.arrival, pool, key)
        def on_evict(self, key, pool, event):
            pass
        """,
    ),
    "forgets on_prefetch": (
        "Ordered",
        VICTIMS,
        "named no key",
        """
        def on_prefetch(self, key, pool, event):
            pass
        def on_use(self, key, pool, event):
            if key in self.order:
                self.order.move_to_end(key)
        def on_evict(self, key, pool, event):
            self.order.pop(key, None)
        """,
    ),
    "returns what is not resident": (
        "Listed",
        VICTIMS,
        "is not resident",
        """
        def victim(self, incoming, pool, core, event):
            for key in range(len(core.state)):
                if core.state[key] == 0:
                    return key
            return NOBODY
        """,
    ),
    "returns a key of another pool": (
        "Listed",
        VICTIMS,
        "is of pool",
        """
        def victim(self, incoming, pool, core, event):
            for key in range(len(core.state)):
                if core.state[key] == READY and evictable(core, key):
                    return key
            return NOBODY
        """,
    ),
    "returns no key at all": (
        "Ordered",
        VICTIMS,
        "which is not a key",
        """
        def victim(self, incoming, pool, cache, event):
            return "the oldest"
        """,
    ),
    "returns a key out of range": (
        "Listed",
        VICTIMS,
        "which is not a key",
        """
        def victim(self, incoming, pool, core, event):
            return -1
        """,
    ),
    "names nobody though somebody may leave": (
        "Ordered",
        VICTIMS,
        "named no key",
        """
        def victim(self, incoming, pool, cache, event):
            return None
        """,
    ),
    "ignores the guard": (
        "Listed",
        "prefetches, guard",
        "may not leave now",
        """
        def victim(self, incoming, pool, core, event):
            key = self.arrival.prev[self.arrival.size + pool]
            while key != self.arrival.size + pool:
                if core.hold[key] == 0:
                    return key
                key = self.arrival.prev[key]
            return NOBODY
        """,
    ),
    "is not reproducible": (
        "Ordered",
        REPRODUCIBLE,
        "differently",
        """
        def victim(self, incoming, pool, cache, event):
            able = list(candidates(cache, pool))
            return random.choice(able) if able else None
        """,
    ),
    "remembers an earlier run": (
        "Ordered",
        REPRODUCIBLE,
        "differently",
        """
        used = {}
        def on_insert(self, key, pool, event):
            self.order[key] = None
            self.used[key] = self.used.get(key, 0) + 1
        def victim(self, incoming, pool, cache, event):
            return min(candidates(cache, pool), key=lambda key: self.used[key], default=None)
        """,
    ),
    "sees the future": (
        "Ordered",
        NEEDS,
        "later events are hidden",
        """
        def victim(self, incoming, pool, cache, event):
            able = sorted(candidates(cache, pool))
            coming = [int(k) for k in event.keys[event.stop : event.stop + 99]]
            return max(able, key=lambda k: coming.index(k) if k in coming else 99, default=None)
        """,
    ),
    "uses a need that was not declared": (
        "Ordered",
        "half of the keys fit",
        "IndexError",
        """
        def victim(self, incoming, pool, cache, event):
            return max(candidates(cache, pool), key=lambda key: event.next_use[key], default=None)
        """,
    ),
    "uses weights that were not declared": (
        "Ordered",
        "C = K",
        "IndexError",
        """
        def on_event(self, event):
            assert event.gates[event.start] >= 0
        """,
    ),
    "raises": (
        "Ordered",
        "all keys fit",
        "ZeroDivisionError: division by zero (",
        """
        def on_use(self, key, pool, event):
            1 / 0
        """,
    ),
    "raises in create": (
        "Ordered",
        "half of the keys fit",
        "KeyError",
        """
        @classmethod
        def create(cls, world):
            return {}["missing"]
        """,
    ),
    "ends the program": (
        "Ordered",
        "scope=layer",
        "SystemExit",
        """
        def on_event(self, event):
            raise SystemExit(3)
        """,
    ),
    "never returns": (
        "Ordered",
        "half of the keys fit",
        "did not return",
        """
        def on_event(self, event):
            while True:
                pass
        """,
    ),
    "has a hook that is no function": (
        "Ordered",
        HOOKS,
        "on_use is not a plain function",
        """
        on_use = print
        """,
    ),
    "meddles with the counters": (
        "Listed",
        COUNTERS,
        "came in",
        """
        core = []
        def victim(self, incoming, pool, core, event):
            self.core[:] = [core]
            return last_evictable(self.arrival, pool, core)
        def on_evict(self, key, pool, event):
            unlink(self.arrival, key)
            self.core[0].counters[10] += 1
        """,
    ),
    "meddles with the misses": (
        "Ordered",
        FETCHES,
        "missing",
        """
        def victim(self, incoming, pool, cache, event):
            self.core = cache
            return next((key for key in self.order if may_leave(cache, pool, key)), None)
        def on_evict(self, key, pool, event):
            del self.order[key]
            self.core.missing[1] = self.core.missing[0]
        """,
    ),
    "writes to the core": (
        "Listed",
        UNTOUCHED,
        "the core's arrays",
        """
        def victim(self, incoming, pool, core, event):
            core.due[incoming % 8] = 5
            return last_evictable(self.arrival, pool, core)
        """,
    ),
    "writes to the event": (
        "Listed",
        UNTOUCHED,
        "the event at clock 1 ",
        """
        def on_event(self, event):
            event.tokens[event.start] += 1
        """,
    ),
    "writes to the event as it ends": (
        "Ordered",
        UNTOUCHED,
        "was written to",
        """
        def on_evict(self, key, pool, event):
            del self.order[key]
            event.tokens[event.start] = 0
        """,
    ),
    "writes to the world": (
        "Ordered",
        UNTOUCHED,
        "arrays of `world`",
        """
        @classmethod
        def create(cls, world):
            world.capacity[0] += 1
            return cls()
        """,
    ),
    "ranks that are not numbers": (
        "Ranked",
        RANKS,
        "is nan",
        """
        def rank(self, key, event):
            return float("nan") if key == 9 else 0.0
        """,
    ),
    "ranks in a heap that are not numbers": (
        "NamedTuple",
        RANKS,
        "a heap holds a rank that is not a number",
        """
        heap: Heap
        @classmethod
        def create(cls, world):
            return cls(make_heap(world))
        def on_insert(self, key, pool, event):
            put(self.heap, pool, key, np.inf - np.inf * (key % 2), 0)
        def on_prefetch(self, key, pool, event):
            put(self.heap, pool, key, 1.0, 0)
        def on_evict(self, key, pool, event):
            drop(self.heap, pool, key)
        def victim(self, incoming, pool, core, event):
            return least_evictable(self.heap, pool, core)
        """,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_policy_is_caught_by_its_check(plugin, monkeypatch, name):
    base, check, words, body = BROKEN[name]
    if name == "never returns":
        monkeypatch.setattr(patience, "PATIENCE_S", 0.05)
    source = f'@policy("mine", source="test", compiled={base in COMPILABLE})\nclass Mine({base}):\n'
    entry = plugin(source + textwrap.indent(textwrap.dedent(body), "    "))
    found = failed(entry)
    assert words in found[check], found


@pytest.mark.parametrize(
    ("axis", "wrong", "words"),
    [
        ("evict", "on_insrt", "did you mean on_insert?"),
        ("evict", "on_evicted", "did you mean on_evict?"),
        ("evict", "on_the_whole", "hooks are on_event, on_use"),
        ("evict", "victm", "did you mean victim?"),
        ("evict", "rnak", "did you mean rank?"),
        ("prefetch", "predicts", "did you mean predict?"),
    ],
)
def test_a_misspelt_hook_is_refused_before_anything_runs(plugin, axis, wrong, words):
    source = f"""
        @policy("mine", axis="{axis}", source="test")
        class Mine(Ranked):
            def {wrong}(self, key, event):
                pass
        """
    with pytest.raises(SpecmdError, match=f"{wrong} is no hook: {re.escape(words)}"):
        plugin(source)


def test_a_method_of_ones_own_may_have_any_other_name(plugin):
    plugin(
        """
        @policy("mine", source="test")
        class Mine(Ordered):
            def ranks(self):
                pass
            def insert(self):
                pass
            def _on_insrt(self):
                pass
        """
    )


@pytest.mark.parametrize(
    ("check", "words", "body"),
    [
        (PROPOSALS, "is not a key", "propose(proposals, 10**6, event.clock + 1, 1.0)"),
        (PROPOSALS, "is not a key", "propose(proposals, -1, event.clock + 1, 1.0)"),
        (PROPOSALS, "is due at clock", "propose(proposals, 1, event.clock, 1.0)"),
        (PROPOSALS, "no score", "propose(proposals, 1, event.clock + 1, float('nan'))"),
        (
            REPRODUCIBLE,
            "otherwise",
            "propose(proposals, random.randrange(32), event.clock + 1, 1.0)",
        ),
        (
            NEEDS,
            "later events are hidden",
            "[propose(proposals, int(k), event.clock + 1, 1.0)"
            " for k in outlook.keys[event.stop : event.stop + 2]]",
        ),
        ("proposals", "ZeroDivisionError", "1 / 0"),
        ("proposals", "IndexError", "outlook.lookahead[0, 0, 0, 0]"),
    ],
)
def test_a_broken_prefetcher_is_caught_by_its_check(plugin, check, words, body):
    entry = plugin(
        f"""
        @policy("mine", axis="prefetch", source="test")
        class Mine:
            @classmethod
            def create(cls, world):
                return cls()

            def predict(self, event, outlook, proposals):
                {body}
        """
    )
    found = failed(entry)
    assert words in found[check], found


def test_a_prefetcher_that_proposes_twice_is_caught(plugin):
    entry = plugin(
        """
        @policy("mine", axis="prefetch", source="test")
        class Mine:
            @classmethod
            def create(cls, world):
                return cls()

            def predict(self, event, outlook, proposals):
                for _ in range(2):
                    at = proposals.count[0]
                    proposals.key[at], proposals.due[at] = 3, event.clock + 1
                    proposals.count[0] += 1
        """
    )
    assert "proposed twice" in failed(entry)[PROPOSALS]


@pytest.mark.parametrize(
    ("axis", "answer", "words"),
    [
        ("schedule", "7", "not a Schedule"),
        ("allocate", "cls()", "7 slots over 4 layers of 8 experts"),
    ],
)
def test_broken_options_are_caught(plugin, axis, answer, words):
    entry = plugin(
        f"""
        @policy("mine", axis="{axis}", source="test")
        class Mine:
            @classmethod
            def create(cls):
                return {answer}

            def quotas(self, slots, layers):
                return [slots, 0, 0, 0] if slots < 7 else [slots] * 4
        """
    )
    assert words in failed(entry)["create"]


@pytest.mark.parametrize("entry", registry.entries("evict"), ids=lambda entry: entry.name)
def test_only_policies_that_draw_depend_on_the_seed(entry):
    choice = equipped(registry.choose("evict", entry.name), small_trace())
    first, second = (watch_eviction(choice, Case("", 16, seed=seed)) for seed in (1, 2))
    assert (first != second) == (entry.name in ("random", "lecar"))
