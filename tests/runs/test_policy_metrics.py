"""Policies publish metrics of their own, and say when their own books do not add up."""

import json
import textwrap

import pytest

import specmd
from specmd.comparison import compare
from specmd.comparison.tables import difference_table
from specmd.errors import SpecmdError
from specmd.policy.registry import add_plugin, forget
from specmd.report.table import run_table
from specmd.report.text import plain
from specmd.runs.resolve import grid
from specmd.runs.run import parse_run, read_run, write_run
from specmd.simulation.simulate import try_config
from specmd.trace import synthetic

TRACE = synthetic(num_requests=2, prompt_length=4, decode_length=20, seed=5)

COMPILED = '''
"""Mine."""
from typing import NamedTuple

import numpy as np

from specmd.policy import *


@policy("{name}", source="test", compiled=True)
class Mine(NamedTuple):
    last: IntArray
    residents: IntArray

    @classmethod
    def create(cls, world):
        return cls(np.zeros(world.num_keys, np.int64), np.zeros(1, np.int64))

    def on_use(self, key, pool, event):
        self.last[key] = event.clock

    def on_insert(self, key, pool, event):
        self.last[key] = event.clock
        self.residents[0] += 1

    def on_evict(self, key, pool, event):
        self.residents[0] -= 1

    def rank(self, key, event):
        return self.last[key]

    def metrics(self):
        return {{"newest": self.last.max(), "residents": int(self.residents.sum())}}

    def finished(self, core):
        there = int((core.state != EMPTY).sum())
        return "" if there == self.residents[0] else f"{{there}} there"
'''

PLAIN = '''
"""Mine."""
from specmd.policy import policy


class Mine:
    @classmethod
    def create(cls, world):
        return cls()

    def rank(self, key, event):
        return 0.0

    def predict(self, event, outlook, proposals):
        self.events = event.clock

'''


@pytest.fixture
def plugin(tmp_path):
    """Register a plug-in given as text; gone after the test."""
    found = []

    def add(text, name="mine"):
        path = tmp_path / f"{name}.py"
        path.write_text(text)
        found.extend(add_plugin(path))
        return path

    yield add
    forget(found)


def saying(body, axis="evict", name="mine"):
    decorated = f'@policy("{name}", axis="{axis}", source="test")\nclass Saying(Mine):\n'
    return PLAIN + decorated + textwrap.indent(textwrap.dedent(body), "    ")


@pytest.mark.parametrize("interpreted", [False, True])
def test_what_a_compiled_policy_publishes_is_the_same_in_every_form(plugin, interpreted):
    plugin(COMPILED.format(name="mine"))
    run = specmd.simulate(TRACE, "mine", 40, interpreted=interpreted, prefetch="prev_token")
    events = TRACE.num_steps * TRACE.header.num_layers
    assert run.policy_metrics == {"evict mine": {"newest": events, "residents": 40}}
    assert parse_run(run.to_json(), "here") == run
    assert json.loads(run.to_json())["policy_metrics"]["evict mine"]["residents"] == 40
    assert run.row()["evict.mine.residents"] == 40


def test_a_timed_run_and_one_emptied_between_requests_publish_too(plugin):
    plugin(COMPILED.format(name="mine"))
    sized = synthetic(
        num_requests=2, prompt_length=4, decode_length=9, seed=5, expert_bytes=1 << 20
    )
    for options in (
        {"profile": "t4"},
        {"reset": "request"},
        {"profile": "t4", "prefetch": "random"},
    ):
        run = specmd.simulate(sized, "mine", 40, bounds=False, **options)
        assert run.policy_metrics["evict mine"]["residents"] == 40, options


def test_the_host_tier_and_the_prefetcher_have_sections_of_their_own(plugin):
    plugin(COMPILED.format(name="mine"))
    plugin(saying("def metrics(self): return {'seen': self.events}", "prefetch", "seer"), "seer")
    options = {"prefetch": "seer", "host_capacity": 80, "host_evict": "mine", "bounds": False}
    first, again = (specmd.simulate(TRACE, "lru", 40, **options) for _ in range(2))
    assert set(first.policy_metrics) == {"host_evict mine", "prefetch seer"}
    assert first.policy_metrics == again.policy_metrics  # whose plan was kept
    events = TRACE.num_steps * TRACE.header.num_layers
    assert first.policy_metrics["prefetch seer"] == {"seen": events}


def test_tables_show_it_when_asked_only(plugin, tmp_path):
    plugin(COMPILED.format(name="mine"))
    runs = [specmd.simulate(TRACE, evict, 40, bounds=False) for evict in ("mine", "lru")]
    assert "residents" not in plain(run_table(runs))
    asked = plain(run_table(runs, ["hit_rate", "evict.mine.residents"]))
    (mine,) = (line for line in asked.splitlines() if line.startswith("mine "))
    (lru,) = (line for line in asked.splitlines() if line.startswith("lru "))
    assert (mine.split()[-1], lru.split()[-1]) == ("40", "-")
    with pytest.raises(SpecmdError, match=r"did you mean evict\.mine\.residents"):
        run_table(runs, ["evict.mine.residentss"])


def test_it_is_compared_like_any_other_metric(plugin, tmp_path):
    plugin(COMPILED.format(name="mine"))
    for folder, slots in (("old", 40), ("new", 50)):
        (tmp_path / folder).mkdir()
        write_run(specmd.simulate(TRACE, "mine", slots, bounds=False), tmp_path / folder)
    found = compare(tmp_path / "old", tmp_path / "new")
    (each,) = (e for e in found.differences if e.metric.name == "evict.mine.residents")
    assert (each.old, each.new, each.direction) == (40, 50, "")
    text = plain(difference_table(found, ["evict.mine.residents"], everything=False))
    assert "+10" in text


WRONG = {
    "clash": ("return {'hit_rate': 1.0}", "metric 'hit_rate' is SpecMD's own"),
    "nan": ("return {'target': float('nan')}", "metric 'target' is nan, not a finite number"),
    "infinite": ("return {'target': float('inf')}", "metric 'target' is inf"),
    "word": ("return {'target': 'big'}", "metric 'target' is 'big', not a number"),
    "truth": ("return {'target': True}", "metric 'target' is True, not a number"),
    "name": ("return {'Target size': 1}", "name it with a-z"),
    "list": ("return [1.0]", "return numbers by name"),
    "raises": ("return {'target': 1 / 0}", "ZeroDivisionError: division by zero (mine.py:"),
}


@pytest.mark.parametrize("axis", ["evict", "prefetch"])
@pytest.mark.parametrize("fault", WRONG)
def test_what_is_no_metric_is_said_in_a_line_with_the_policys_name(plugin, axis, fault):
    body, words = WRONG[fault]
    plugin(saying(f"def metrics(self):\n    {body}", axis))
    (config,) = grid(TRACE.header, **({"evict": "lru", "capacity": "25%"} | {axis: "mine"}))
    run = try_config(TRACE, config, bounds=False)
    assert run.status == "failed"
    assert run.reason.startswith(f"{axis} policy 'mine': ")
    assert words in run.reason
    assert "\n" not in run.reason


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return 'three keys too many'", "its books do not add up: three keys too many"),
        ("assert len(core.state) == 0, 'keys'", "do not add up: AssertionError: keys (mine.py:"),
    ],
)
def test_books_that_do_not_add_up_fail_the_run(plugin, body, words):
    plugin(saying(f"def finished(self, core):\n    {body}"))
    with pytest.raises(SpecmdError, match=r"^evict policy 'mine': ") as caught:
        specmd.simulate(TRACE, "mine", 40, bounds=False)
    assert words in str(caught.value)


def test_nearly_the_right_name_is_refused(plugin):
    with pytest.raises(SpecmdError, match="did you mean finished"):
        plugin(saying("def finishd(self, core):\n    return ''"))


def test_a_run_of_before_there_were_any_is_read(tmp_path):
    run = specmd.simulate(TRACE, "lru", 40, bounds=False)
    said = json.loads(run.to_json())
    assert said.pop("policy_metrics") == {}
    path = tmp_path / f"{run.id}.json"
    path.write_text(json.dumps(said))
    assert read_run(path) == run


@pytest.mark.parametrize(
    ("evict", "name", "most"),
    [("arc", "target", 40), ("lecar", "recency_weight", 1), ("slru", "proven", 32)],
)
@pytest.mark.parametrize("interpreted", [False, True])
def test_built_in_policies_say_where_they_came_to_stand(evict, name, most, interpreted):
    options = {"prefetch": "prev_token", "bounds": False, "interpreted": interpreted}
    run = specmd.simulate(TRACE, evict, 40, **options)
    assert 0 < run.policy_metrics[f"evict {evict}"][name] <= most
