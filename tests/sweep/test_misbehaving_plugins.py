"""A plug-in that breaks a rule, crashes or never returns is a failed run; no other is hurt."""

import textwrap

import pytest

from specmd.runs.resolve import make_grid
from specmd.runs.run import read_runs
from specmd.sweep.sweep import Tally, sweep
from specmd.trace import save, synthetic

HEAD = '''"""Mine: misbehaves."""
import ctypes
import os
from typing import NamedTuple

import numpy as np

from specmd.policy import *


class Base(NamedTuple):
    last: FloatArray

    @classmethod
    def create(cls, world):
        return cls(np.zeros(world.num_keys))

    def on_insert(self, key, pool, event):
        self.last[key] = event.clock

    def rank(self, key, event):
        return self.last[key]

'''
# name: (what the reason says, body)
FAULTS = {
    "raises": ("ZeroDivisionError", "def on_use(self, key, pool, event):\n    1 // (key - key)"),
    "exits": ("its worker process died, twice", "def on_event(self, event):\n    os._exit(0)"),
    "crashes": (
        "its worker process died, twice: Segmentation fault (mine.py:",
        "def on_event(self, event):\n    ctypes.string_at(0)",
    ),
    "evicts_held": (
        "may not leave now",
        "def victim(self, incoming, pool, core, event):\n    return event.keys[event.start]",
    ),
    "writes": (
        "wrote to the tokens of an event",
        "def on_event(self, event):\n    event.tokens[event.start] += 1",
    ),
    "nan": ("rank returned NaN", "def rank(self, key, event):\n    return self.last[key] * np.nan"),
    "undeclared": (
        "IndexError",
        "def rank(self, key, event):\n    return event.next_use[key]",
    ),
    "out_of_bounds": (
        "IndexError",
        "def on_use(self, key, pool, event):\n    self.last[key + 1000] = 1.0",
    ),
    "unsound_books": ("its books do not add up", "def finished(self, core):\n    return 'a key'"),
    "counts": (
        "it ran the plug-in mine.py",
        "def victim(self, incoming, pool, core, event):\n"
        "    core.counters[0] += 5\n"
        "    for key in range(len(core.state) - 1, -1, -1):\n"
        "        if core.state[key] == READY and evictable(core, key):\n"
        "            return key\n"
        "    return NOBODY",
    ),
}


def write(folder, faults):
    text = HEAD
    for name, body in faults.items():
        title = "".join(map(str.capitalize, name.split("_")))
        text += f'\n\n@policy("{name}", source="test", compiled=True)\nclass {title}(Base):\n'
        text += "    @classmethod\n    def create(cls, world):\n"
        text += "        return cls(np.zeros(world.num_keys))\n\n"
        text += textwrap.indent(body, "    ") + "\n"
    path = folder / "mine.py"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    made = synthetic(num_layers=3, num_experts=6, top_k=2, num_requests=2, decode_length=12)
    return save(made, tmp_path_factory.mktemp("traces") / "small.npz")


def test_each_is_a_failed_run_and_no_other_is_hurt(trace, tmp_path, own_registry):
    mine = write(tmp_path, {name: body for name, (_, body) in FAULTS.items()})
    grid = make_grid({"evict": ["lru", *FAULTS, "fifo"], "capacity": 6})
    tally = sweep([trace], grid, tmp_path / "out", bounds=False, workers=2, plugins=[mine])
    runs = {run.config.evict: run for run in read_runs(tmp_path / "out")}
    said = {name: run.reason for name, run in runs.items()}
    assert tally == Tally(done=2, failed=len(FAULTS)), said
    assert {name for name, run in runs.items() if run.status == "ok"} == {"lru", "fifo"}
    for name, (words, _) in FAULTS.items():
        assert words in said[name], said[name]
        assert "mine.py" in said[name] or f"policy '{name}'" in said[name], said[name]
        assert "\n" not in said[name]


def test_one_that_never_returns_is_ended_and_the_line_is_named(trace, tmp_path, own_registry):
    mine = write(tmp_path, {"loops": "def on_event(self, event):\n    while True: pass"})
    grid = make_grid({"evict": ["loops"], "capacity": [6, 7]})
    asked = {"bounds": False, "workers": 2, "plugins": [mine]}
    assert sweep([trace], grid, tmp_path / "out", time_limit=20, **asked) == Tally(failed=2)
    for run in read_runs(tmp_path / "out"):
        assert "did not return within 20 s (mine.py:" in run.reason
        assert "in on_event); if it is only slow, give it more (--time-limit)" in run.reason
