"""`specmd validate policy`: every fault of a plug-in is named, with its file and line.

All that does not end the process is in one file and checked in one process; what ends it, in one
each.
"""

import re
import textwrap

import pytest

from specmd.conformance.apart import check_apart
from specmd.conformance.cases import PROPOSALS
from specmd.conformance.suite import COMPILED, NEEDS, REPRODUCIBLE
from specmd.conformance.watch import RANKS, UNTOUCHED, VICTIMS
from specmd.errors import SpecmdError

HEAD = '''"""Mine: broken in every way."""
import random
import time
from typing import NamedTuple

import numpy as np

from specmd.policy import *

COUNT = [0]

'''

PLAIN = """
@policy("{name}", axis="{axis}", source="test")
class {title}:
    @classmethod
    def create(cls, world):
        return cls()

    def __init__(self):
        self.last = {{}}

    def on_insert(self, key, pool, event):
        self.last[key] = event.clock

    def rank(self, key, event):
        return self.last[key]
{body}
"""

ARRAYS = """
@policy("{name}", axis="{axis}", source="test", compiled=True)
class {title}(NamedTuple):
    last: IntArray
    noise: FloatArray
    byte: KeyArray

    @classmethod
    def create(cls, world):
        noise = np.zeros(world.num_keys)
        return cls(np.zeros(world.num_keys, np.int64), noise, np.zeros(1, np.uint8))

    def on_insert(self, key, pool, event):
        self.last[key] = event.clock

    def rank(self, key, event):
        return self.last[key]
{body}
"""

HELD = """
def victim(self, incoming, pool, core, event):
    return event.keys[event.start]
"""
ABSENT = """
def victim(self, incoming, pool, core, event):
    for key in range(len(core.state)):
        if core.state[key] == EMPTY:
            return key
    return NOBODY
"""
# name: (check that names it, what it says, a word of the line it points to, body)
BOTH = {
    "raises": ("C = K", "ZeroDivisionError", "1 // (", """
        def on_use(self, key, pool, event):
            self.last[key] = 1 // (event.clock - event.clock)
        """),
    "loops": ("half of the keys fit", "did not return within 1 s", "while", """
        def on_event(self, event):
            while event.clock > 0: pass
        """),
    "evicts_held": (VICTIMS, "may not leave now", "def victim", HELD),
    "evicts_absent": (VICTIMS, "is not resident", "def victim", ABSENT),
    "writes_event": (UNTOUCHED, "the event at clock", "def on_event", """
        def on_event(self, event):
            event.tokens[event.start] += 1
        """),
    "writes_core": (UNTOUCHED, "the core's arrays", "def victim", """
        def victim(self, incoming, pool, core, event):
            core.due[0] += 7
            for key in range(len(core.state) - 1, -1, -1):
                ready = core.pool[key] == pool and core.state[key] == READY
                if ready and evictable(core, key):
                    return key
            return NOBODY
        """),
    "undeclared": ("half of the keys fit", "did not declare in `needs`", "next_use", """
        def rank(self, key, event):
            return event.next_use[key]
        """),
    "returns_nan": (RANKS, "is nan", "def rank", """
        def rank(self, key, event):
            return float("nan")
        """),
    "returns_words": (RANKS, "is 'first'", "def rank", """
        def rank(self, key, event):
            return "first"
        """),
    "unsound_books": ("slow link", "its books do not add up: 3 keys too many", "", """
        def finished(self, core):
            return "3 keys too many"
        """),
    "clashes": ("slow link", "metric 'misses' is SpecMD's own", "", """
        def metrics(self):
            return {"misses": 1.0}
        """),
}  # fmt: skip
ONLY_PLAIN = {
    "keeps_state": (REPRODUCIBLE, "KeepsState.used keeps its content", "used =", """
        used = {}
        def on_use(self, key, pool, event):
            self.used[key] = self.used.get(key, 0) + 1
        def rank(self, key, event):
            return self.used.get(key, 0)
        """),
    "keeps_global": (REPRODUCIBLE, "the global COUNT keeps its content", "COUNT =", """
        def rank(self, key, event):
            COUNT[0] += 1
            return COUNT[0] * 7919 % 1009
        """),
    "draws": (REPRODUCIBLE, "random.random() is another in every run", "random.random", """
        def rank(self, key, event):
            return random.random()
        """),
    "wall_clock": (REPRODUCIBLE, "time.perf_counter() is another", "time.perf", """
        def rank(self, key, event):
            return time.perf_counter() * 1e9 % 1009
        """),
    "looks_ahead": (NEEDS, "later events are hidden", "", """
        def rank(self, key, event):
            coming = [int(k) for k in event.keys[event.stop : event.stop + 99]]
            return -coming.index(key) if key in coming else -99
        """),
}  # fmt: skip
ONLY_COMPILED = {
    "compiled_draws": (REPRODUCIBLE, "np.random.random() is another", "np.random", """
        def rank(self, key, event):
            return np.random.random()
        """),
    "compiled_loops": (COMPILED, "did not return within 1 s", "compiled", """
        def on_event(self, event):
            self.byte[0] = 0
            while self.byte[0] < 300:
                self.byte[0] += 1
        """),
    "compiled_otherwise": (COMPILED, "decides differently when it is compiled", "", """
        def on_insert(self, key, pool, event):
            self.byte[0] += 100
            self.last[key] = self.byte[0] % 777
        """),
    "does_not_compile": (COMPILED, "mine.py:", "", """
        def rank(self, key, event):
            return float(str(key)[:3])
        """),
}  # fmt: skip
AHEAD = {
    "far_key": (PROPOSALS, "is not a key", "", "propose(proposals, 10**6, event.clock + 1, 1.0)"),
    "late": (PROPOSALS, "is due at clock", "", "propose(proposals, 1, event.clock, 1.0)"),
    "no_score": (PROPOSALS, "no score", "", "propose(proposals, 1, event.clock + 1, np.nan)"),
    "ahead_raises": ("proposals", "IndexError", "lookahead", "outlook.lookahead[0, 0, 0, 0]"),
}  # fmt: skip


EXECUTING = {
    "route_no_expert": ("route", "32 slots", "what is not an expert", "", """
        def route(self, event, rows, core):
            rows.ids[0] = rows.experts + 3
        """),
    "route_twice": ("route", "32 slots", "an expert twice for a token", "", """
        def route(self, event, rows, core):
            rows.ids[1] = rows.ids[0]
        """),
    "route_writes": ("route", UNTOUCHED, "route wrote to the core's arrays", "def route", """
        def route(self, event, rows, core):
            core.state[0] = READY
        """),
    "miss_answers": ("miss", "8 slots", "none of FETCH, HOST, LOWBIT, DROP and DEFER", "", """
        def answer(self, key, event, rows, core):
            return 7
        """),
    "miss_absent": ("miss", "8 slots", "stand in that is not ready", "", """
        def answer(self, key, event, rows, core):
            for pair in range(pairs(rows)):
                if needs_it(rows, pair, key - event.layer * event.num_experts):
                    replace(rows, pair, key - event.layer * event.num_experts)
            return FETCH
        """),
    "miss_raises": ("miss", "8 slots", "ZeroDivisionError", "1 //", """
        def answer(self, key, event, rows, core):
            return 1 // (key - key)
        """),
}  # fmt: skip


def _classes():
    for kind, form, faults in (
        ("plain", PLAIN, BOTH | ONLY_PLAIN),
        ("compiled", ARRAYS, BOTH | ONLY_COMPILED),
    ):
        for name, (check, words, line, body) in faults.items():
            full = name if name not in BOTH else f"{name}_{kind}"
            title = "".join(map(str.capitalize, full.split("_")))
            body = textwrap.indent(textwrap.dedent(body), "    ")
            text = form.format(name=full, axis="evict", title=title, body=body)
            yield f"evict {full}", check, words, line, text
    for form, end in ((PLAIN, ""), (ARRAYS, "_compiled")):
        for name, (axis, check, words, line, body) in EXECUTING.items():
            title = "".join(map(str.capitalize, (name + end).split("_")))
            head = form.partition("    def on_insert")[0].replace(
                'source="test"', 'source="test", needs=["weights"], lossy=True'
            )
            text = head.format(name=name + end, axis=axis, title=title)
            body = textwrap.indent(textwrap.dedent(body), "    ")
            yield f"{axis} {name}{end}", check, words, line, text + body
    for name, (check, words, line, body) in AHEAD.items():
        body = f"    def predict(self, event, outlook, proposals):\n        {body}\n"
        title = "".join(map(str.capitalize, name.split("_")))
        text = PLAIN.partition("    def on_insert")[0] + body
        text = text.format(name=name, axis="prefetch", title=title)
        yield f"prefetch {name}", check, words, line, text


FAULTS = list(_classes())


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    path = tmp_path_factory.mktemp("broken") / "mine.py"
    path.write_text(HEAD + "".join(text for *_, text in FAULTS))
    return path


@pytest.fixture(scope="module")
def said(mine):
    return list(check_apart(str(mine), limit_s=1.0))


@pytest.mark.parametrize(
    ("subject", "check", "words", "line"), [each[:4] for each in FAULTS], ids=lambda each: each
)
def test_a_fault_is_named_with_file_and_line(mine, said, subject, check, words, line):
    own = {each.name: each.detail for each in said if each.subject == subject and not each.passed}
    if check == "C = K" and check not in own:
        check = next(iter(own), check)
    assert check in own, own
    assert words in own[check]
    if line == "compiled":
        assert "(mine.py, compiled)" in own[check]
    elif line:
        place = re.search(r"\(mine\.py:(\d+)", own[check])
        assert place, own[check]
        assert line in mine.read_text().splitlines()[int(place[1]) - 1]


def test_none_of_them_is_timed(said):
    assert not [each for each in said if each.passed is None]


ENDS = {
    "os._exit": ("import os\n", "os._exit(0)", "called os._exit"),
    "segfault": ("import ctypes\n", "ctypes.string_at(0)", "Segmentation fault (mine.py:"),
    "out of memory's signal": ("import os\n", "os.kill(os.getpid(), 9)", "killed"),
}


@pytest.mark.parametrize("how", ENDS)
def test_what_ends_its_process_is_a_finding(tmp_path, how):
    head, statement, words = ENDS[how]
    path = tmp_path / "mine.py"
    body = f"    def on_event(self, event):\n        {statement}\n"
    path.write_text(HEAD + head + PLAIN.format(name="mine", axis="evict", title="Mine", body=body))
    *_, last = check_apart(str(path))
    assert (last.subject, last.passed) == ("evict mine", False)
    assert last.name == "half of the keys fit"
    assert words in last.detail


def test_a_file_that_ends_the_process_as_it_is_imported(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import os\nos._exit(3)\n")
    (found,) = check_apart(str(path))
    assert (found.subject, found.name, found.passed) == ("", "import", False)


def test_what_cannot_be_imported_is_an_error(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("import nothing_of_that_name\n")
    with pytest.raises(SpecmdError, match=r"ModuleNotFoundError: .*\(mine\.py:1"):
        list(check_apart(str(path)))


def test_what_is_sound_is_timed_and_told_what_would_make_it_faster(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(HEAD + PLAIN.format(name="mine", axis="evict", title="Mine", body=""))
    found = list(check_apart(str(path)))
    assert all(each.passed for each in found[:-1])
    assert found[-1].passed is None
    assert re.match(r"[0-9.e-]+ M accesses/s, [0-9.e-]+ x LRU in this process: it is interpreted",
                    found[-1].detail)  # fmt: skip


def test_what_a_plugin_prints_is_not_taken_for_a_finding(tmp_path, capfd):
    path = tmp_path / "mine.py"
    body = '    def on_event(self, event):\n        print(\'{"case": "mine"}\')\n'
    path.write_text(HEAD + PLAIN.format(name="mine", axis="evict", title="Mine", body=body))
    assert all(each.passed for each in check_apart(str(path), timed=False))
    assert '{"case": "mine"}' in capfd.readouterr().err
