"""A plug-in to start from: a policy that works, and the test that goes with it.

On the axes that most plug-ins are for there is a short one in ordinary Python; on every other, and
where a policy to start from is named, it is that policy's own file under the new name.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from specmd.errors import SpecmdError
from specmd.files import write_text
from specmd.policy.registry import AXES, BUILT_IN, Axis, choose, entries
from specmd.runs.options import RunConfig

_EVICT = '''"""{title}: the key used least for the time since its last use leaves first."""

from specmd.policy import policy


@policy("{name}", source="my own")
class {title}:
    """Counts uses of the keys that are in the cache."""

    @classmethod
    def create(cls, world, *, patience: float = 1.0):
        """Build it; keyword arguments are what `{name}:patience=8` sets."""
        return cls(patience)

    def __init__(self, patience):
        self.patience = patience
        self.uses = {{}}  # by key
        self.last = {{}}  # clock of the last use, by key

    def on_insert(self, key, pool, event):
        """A missed key enters; that is a use."""
        self.uses[key] = 0
        self.on_use(key, pool, event)

    def on_use(self, key, pool, event):
        """A resident key is asked for."""
        self.uses[key] += 1
        self.last[key] = event.clock

    def on_evict(self, key, pool, event):
        """A key left."""
        del self.uses[key], self.last[key]

    def rank(self, key, event):
        """The smallest leaves first; of equals the larger key."""
        return self.uses[key] / (event.clock - self.last[key] + self.patience)
'''

_PREFETCH = '''"""{title}: the experts that the next layer has used most so far are fetched."""

import numpy as np

from specmd.policy import policy, propose


@policy("{name}", axis="prefetch", source="my own")
class {title}:
    """Counts uses of every key."""

    @classmethod
    def create(cls, world, *, width: int = 0):
        """Build it; keyword arguments are what `{name}:width=2` sets (0: as many as the router)."""
        return cls(width or world.top_k, np.zeros(world.num_keys, np.int64))

    def __init__(self, width, uses):
        self.width = width
        self.uses = uses

    def predict(self, event, outlook, proposals):
        """Learn from this event, then propose keys: when they are due, and how good they are."""
        self.uses[event.keys[event.start : event.stop]] += 1
        first = (event.layer + 1) % event.num_layers * event.num_experts
        uses = self.uses[first : first + event.num_experts]
        for expert in np.argsort(-uses, kind="stable")[: self.width]:
            propose(proposals, first + int(expert), event.clock + 1, float(uses[expert]))
'''

_PLAIN: dict[str, str] = {"evict": _EVICT, "prefetch": _PREFETCH}

_TEST = '''"""{name} keeps to the rules, and does what it says."""

from pathlib import Path

import specmd
from specmd.conformance.suite import check_policy
from specmd.policy.registry import add_plugin
from specmd.trace import synthetic

(ENTRY,) = add_plugin(Path(__file__).with_name("{name}.py"))


def test_it_keeps_to_the_rules():
    wrong = [finding for finding in check_policy(ENTRY) if not finding.passed]
    assert not wrong


def test_it_decides_alike_twice_and_is_no_better_than_what_is_possible():
    trace = synthetic(num_requests=2, prompt_length=4, decode_length=12, seed=1)
    options = {{"evict": "lru", "{axis}": "{name}", "capacity": "25%"}}
    run, again = (specmd.simulate(trace, **options) for _ in range(2))
    assert run.decision_digest == again.decision_digest
    assert run.metrics["accesses"] == sum(
        run.metrics[name] for name in ("hits", "late_hits", "misses")
    )
    assert run.bounds.regret_misses is None or run.bounds.regret_misses >= 0
'''


def write_plugin(name: str, axis: Axis, like: str | None, folder: Path) -> list[Path]:
    """Write NAME.py and test_NAME.py into a folder.

    Args:
        name: of the policy, and of its file.
        axis: what it decides.
        like: the policy to start from; None for the simplest there is.
        folder: which must exist.

    Raises:
        SpecmdError: the name is taken or is none, or one of the files exists.

    """
    if axis not in AXES:
        raise SpecmdError(f"unknown axis '{axis}': known: {', '.join(AXES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecmdError(f"'{name}' cannot be a policy's name: use a-z, 0-9 and _, a letter first")
    if any((entry.axis, entry.name) == (axis, name) for entry in entries()):
        raise SpecmdError(f"{axis} policy '{name}' exists already: choose another name")
    policy, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in (policy, test):
        if path.exists():
            raise SpecmdError(f"{path} exists and is left as it is: choose another name or folder")
    title = "".join(word.capitalize() for word in name.split("_") if word)
    if like is None and axis in _PLAIN:
        text = _PLAIN[axis].format(name=name, title=title)
    else:
        text = _renamed(axis, like or RunConfig.model_fields[axis].default, name, title)
    write_text(policy, text)
    write_text(test, _TEST.format(name=name, axis=axis))
    return [policy, test]


def _renamed(axis: Axis, like: str, name: str, title: str) -> str:
    """Return the file of a built-in policy with another policy's name in it."""
    entry = choose(axis, like).entry
    if entry.origin != BUILT_IN:
        raise SpecmdError(f"{like} is from {entry.origin}: copy that file, or name a built-in one")
    text = Path(inspect.getfile(entry.cls)).read_text(encoding="utf-8")
    text = re.sub(rf'(@policy\(\s*)"{entry.name}"', rf'\1"{name}"', text)
    text = re.sub(r'^"""[^:\n]+:', f'"""{title}:', text)
    return re.sub(rf"\b{entry.cls.__name__}\b", title, text)
