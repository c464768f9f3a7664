"""What `specmd new policy` writes: a short policy of every axis that is asked while a run goes on.

Each in two forms, where both make sense: ordinary Python, and what numba compiles. `{name}` is the
policy's, `{title}` that of its class.
"""

from __future__ import annotations

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

    def finished(self, core):
        """Say what is wrong with its books after a run; nothing if all is well."""
        return "" if self.uses.keys() == self.last.keys() else "a key has no last use"
'''

_EVICT_COMPILED = '''"""{title}: the key used least for the time since its last use leaves first."""

from typing import NamedTuple

import numpy as np

from specmd.policy import IntArray, policy


@policy("{name}", source="my own", compiled=True)
class {title}(NamedTuple):
    """Counts uses of the keys that are in the cache. What changes is an array."""

    uses: IntArray  # (keys,)
    last: IntArray  # (keys,) clock of the last use
    patience: float

    @classmethod
    def create(cls, world, *, patience: float = 1.0):
        """Build it; keyword arguments are what `{name}:patience=8` sets."""
        uses, last = np.zeros((2, world.num_keys), np.int64)
        return cls(uses, last, patience)

    def on_insert(self, key, pool, event):
        """A missed key enters; that is a use."""
        self.uses[key] = 1
        self.last[key] = event.clock

    def on_use(self, key, pool, event):
        """A resident key is asked for."""
        self.uses[key] += 1
        self.last[key] = event.clock

    def rank(self, key, event):
        """The smallest leaves first; of equals the larger key."""
        return self.uses[key] / (event.clock - self.last[key] + self.patience)

    def metrics(self):
        """Publish numbers of its own: `--metric evict.{name}.most_uses` shows it."""
        return {{"most_uses": int(self.uses.max())}}
'''

_PREFETCH = '''"""{title}: the experts that the next layer has used most are fetched."""

import numpy as np

from specmd.policy import policy, propose


@policy("{name}", axis="prefetch", source="my own")
class {title}:
    """Counts uses of every key."""

    @classmethod
    def create(cls, world, *, width: int = 0):
        """Build it; `{name}:width=2` sets it (0: as many as the router takes)."""
        return cls(width or world.top_k, np.zeros(world.num_keys, np.int64))

    def __init__(self, width, uses):
        self.width = width
        self.uses = uses

    def predict(self, event, outlook, proposals):
        """Learn from this event, then propose keys: when they are due, how good."""
        self.uses[event.keys[event.start : event.stop]] += 1
        first = (event.layer + 1) % event.num_layers * event.num_experts
        uses = self.uses[first : first + event.num_experts]
        for expert in np.argsort(-uses, kind="stable")[: self.width]:
            propose(proposals, first + int(expert), event.clock + 1, float(uses[expert]))
'''

_PREFETCH_COMPILED = '''"""{title}: the experts that the next layer has used most are fetched."""

from typing import NamedTuple

import numpy as np

from specmd.policy import IntArray, policy, propose


@policy("{name}", axis="prefetch", source="my own", compiled=True)
class {title}(NamedTuple):
    """Counts uses of every key. What changes is an array."""

    uses: IntArray  # (keys,)
    order: IntArray  # (experts,) scratch: the best of a layer
    width: int

    @classmethod
    def create(cls, world, *, width: int = 0):
        """Build it; `{name}:width=2` sets it (0: as many as the router takes)."""
        width = min(width or world.top_k, world.num_experts)
        uses, order = world.num_keys, world.num_experts
        return cls(np.zeros(uses, np.int64), np.zeros(order, np.int64), width)

    def predict(self, event, outlook, proposals):
        """Learn from this event, then propose keys: when they are due, how good."""
        for i in range(event.start, event.stop):
            self.uses[event.keys[i]] += 1
        first = (event.layer + 1) % event.num_layers * event.num_experts
        for expert in range(event.num_experts):  # sorted by insertion, most used first
            place, uses = expert, self.uses[first + expert]
            while place > 0 and self.uses[first + self.order[place - 1]] < uses:
                self.order[place] = self.order[place - 1]
                place -= 1
            self.order[place] = expert
        for i in range(self.width):
            key = first + self.order[i]
            propose(proposals, key, event.clock + 1, float(self.uses[key]))
'''

_ROUTE_HEAD = '''"""{title}: an expert that is not there, and weighs little, is not executed."""

'''
_ROUTE_BODY = '''
    def route(self, event, rows, core):
        """Choose what each token executes: a pair is `token * top_k + place`."""
        for token in range(rows.tokens[0]):
            first, done = token * rows.top_k, 0
            for i in range(first, first + chosen(rows, token)):
                heavy = rows.true_weights[i] >= self.least * rows.true_weights[first]
                if heavy or is_there(core, event, rows.true_ids[i]):
                    execute(rows, token, done, rows.true_ids[i])
                    done += 1
            execute_only(rows, token, done)  # and weigh them by the model's rule
'''
_ROUTE_IMPORTS = """from specmd.policy import chosen, execute, execute_only, is_there, policy


@policy("{name}", axis="route", source="my own", needs=["weights"], lossy=True"""

_MISS_HEAD = '''"""{title}: a missing expert that few tokens chose is computed on the host."""

'''
_MISS_BODY = '''
    def answer(self, key, event, rows, core):
        """Say what is done about a missing key: FETCH, HOST, LOWBIT, DROP or DEFER."""
        return HOST if event.tokens[place_of(event, key)] <= self.tokens else FETCH
'''
_MISS_IMPORTS = '''from specmd.policy import FETCH, HOST, place_of, policy


@policy("{name}", axis="miss", source="my own"'''


def _both(head: str, imports: str, body: str, what: str, field: str) -> tuple[str, str]:
    """Write a policy whose state is one number that never changes, in both forms."""
    name, kind, default = field.split()
    create = f'''
    @classmethod
    def create(cls, world, *, {name}: {kind} = {default}):
        """Build it; keyword arguments are what `{{name}}:{name}={default}` sets."""
        return cls({name})
'''
    plain = f'''):
class {{title}}:
    """{what}"""
{create}
    def __init__(self, {name}):
        self.{name} = {name}
'''.replace("):\nclass", ")\nclass")
    arrays = f''', compiled=True)
class {{title}}(NamedTuple):
    """{what}"""

    {name}: {kind}
{create}'''
    return (
        head + imports + plain + body,
        head + "from typing import NamedTuple\n\n" + imports + arrays + body,
    )


_ROUTE = _both(
    _ROUTE_HEAD, _ROUTE_IMPORTS, _ROUTE_BODY,
    "Executes what weighs at least a share of the token's heaviest.", "least float 0.5",
)  # fmt: skip
_MISS = _both(
    _MISS_HEAD, _MISS_IMPORTS, _MISS_BODY, "Fetches what more tokens chose.", "tokens int 1"
)

_ADMISSION = '''"""{title}: a key enters when it is missed again within so many steps."""

from specmd.policy import policy


@policy("{name}", axis="admission", source="my own", remembers=True)
class {title}:
    """Remembers when each key was missed last."""

    @classmethod
    def create(cls, world, *, within: int = 16):
        """Build it; keyword arguments are what `{name}:within=16` sets."""
        return cls(within)

    def __init__(self, within):
        self.within = within
        self.missed = {{}}  # step of the last miss, by key

    def admits(self, key, pool, core, event):
        """Say whether a missed key may have a slot; one that may not streams through."""
        before = self.missed.get(key)
        self.missed[key] = event.step
        return before is not None and event.step - before <= self.within
'''

_ADMISSION_COMPILED = '''"""{title}: a key enters when it is missed again within so many steps."""

from typing import NamedTuple

import numpy as np

from specmd.policy import IntArray, policy


@policy("{name}", axis="admission", source="my own", remembers=True, compiled=True)
class {title}(NamedTuple):
    """Remembers when each key was missed last. What changes is an array."""

    missed: IntArray  # (keys,) step of the last miss, -1 never
    within: int

    @classmethod
    def create(cls, world, *, within: int = 16):
        """Build it; keyword arguments are what `{name}:within=16` sets."""
        return cls(np.full(world.num_keys, -1, np.int64), within)

    def admits(self, key, pool, core, event):
        """Say whether a missed key may have a slot; one that may not streams through."""
        before = self.missed[key]
        self.missed[key] = event.step
        return before >= 0 and event.step - before <= self.within
'''

PLAIN: dict[str, str] = {
    "evict": _EVICT,
    "prefetch": _PREFETCH,
    "route": _ROUTE[0],
    "miss": _MISS[0],
    "admission": _ADMISSION,
}
COMPILED: dict[str, str] = {
    "evict": _EVICT_COMPILED,
    "prefetch": _PREFETCH_COMPILED,
    "route": _ROUTE[1],
    "miss": _MISS[1],
    "admission": _ADMISSION_COMPILED,
}

TEST = '''"""{name} keeps to the rules, and does what it says."""

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
    options = {{"{axis}": "{name}", "capacity": "25%"}}
    run, again = (specmd.simulate(trace, **options) for _ in range(2))
    assert run.decision_digest == again.decision_digest
    assert run.metrics["accesses"] == sum(
        run.metrics[name] for name in ("hits", "late_hits", "misses")
    )
    assert run.bounds.regret_misses is None or run.bounds.regret_misses >= 0
'''
