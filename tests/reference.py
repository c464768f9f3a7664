"""A second simulator, written from the contract: lists, dicts and full scans, nothing clever.

It shares no line with the residency core or the policies. `Reference.run` returns the ordered log
of decisions and the counters; `core_log` makes the core tell its own. A rule is asked for a victim
also when nobody may leave: the rules of queues learn from being asked.
"""

from collections import Counter
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import inf, log2

import numpy as np

from specmd.core import state as residency
from specmd.core.event import World
from specmd.core.kernel import Kernel
from specmd.core.order.chance import below
from specmd.core.state import LOADING, READY
from specmd.policy.registry import choose
from specmd.simulation.events import EventStream
from specmd.trace import build_trace

HIT, LATE, FETCH, PREFETCH, EVICT, BYPASS, CANCEL = range(1, 8)
COUNTS = (
    "accesses", "reuse_hits", "prefetch_hits", "late_hits", "compulsory", "collision", "capacity",
    "tokens", "token_hits", "bypassed", "evictions", "unused_evictions", "issued", "wasted",
    "cancelled", "redundant", "dropped",
)  # fmt: skip


@dataclass
class Step:
    """An event: what is demanded, and what is proposed as (key, due) in order of issue."""

    clock: int
    step: int
    layer: int
    tokens: dict
    proposals: list = field(default_factory=list)
    gates: dict = field(default_factory=dict)  # router weight of each key
    phase: int = 1


@dataclass
class Knowledge:
    """What any rule may look at: kept for all keys, resident or not."""

    steps: list
    layers: int
    experts: int
    touched: dict = field(default_factory=dict)  # key: clock of the last touch
    touched_step: dict = field(default_factory=dict)
    uses: Counter = field(default_factory=Counter)
    entered: dict = field(default_factory=dict)  # key: rank of its entry
    queued: dict = field(default_factory=dict)  # key: rank of its first touch in its last step
    entries: int = 0
    slots: list = ()  # of each pool
    regretted: object = None  # the miss whose ghost ARC has just learnt from, in whatever pool
    top_k: int = 0
    popularity: object = ()
    kept: tuple = ()  # pinned keys
    slotless: set = field(default_factory=set)  # misses of a wide event that have no slot
    hits: Counter = field(default_factory=Counter)  # key: uses of a resident since it entered
    history: object = None  # the last accesses

    def layer_of(self, key):
        return key // self.experts

    def next_use(self, key, now):
        return next((s.clock for s in self.steps if s.clock > now.clock and key in s.tokens), inf)


class Ranked:
    """A rule that gives each key a rank; the smallest leaves, of equals the larger key."""

    def __init__(self, rank, know, capacity, forget=False):
        self.rank, self.know, self.forget = rank, know, forget

    def used(self, key, now):
        pass

    def entered(self, key, now, prefetched):
        pass

    def left(self, key):
        if self.forget:
            self.know.uses[key] = 0

    def victim(self, able, incoming, now):
        return min(able, key=lambda key: (self.rank(self.know, key, now), -key), default=None)


RANKS = {
    "lru": lambda k, key, now: k.touched[key],
    "mru": lambda k, key, now: -k.touched[key],
    "fifo": lambda k, key, now: k.entered[key],
    "lfu": lambda k, key, now: (k.uses[key], k.touched[key]),
    "lfu:ties=key": lambda k, key, now: k.uses[key],
    "lfu:resident=true": lambda k, key, now: (k.uses[key], k.touched[key]),
    "lfru": lambda k, key, now: Fraction(k.uses[key], now.clock - k.touched[key] + 1),
    "static": None,  # nothing ever leaves
    "belady": lambda k, key, now: -k.next_use(key, now),
    "layer_distance": lambda k, key, now: (
        (now.layer - k.layer_of(key)) % k.layers,
        k.touched[key],
    ),
    "layer_distance:ties=frequency": lambda k, key, now: (
        (now.layer - k.layer_of(key)) % k.layers,
        k.uses[key],
        k.touched[key],
    ),
    "least_stale": lambda k, key, now: (
        k.touched_step[key] == now.step,
        (now.layer - k.layer_of(key)) % k.layers,
        k.touched[key],
    ),
    "least_stale:order=layer": lambda k, key, now: (
        k.touched_step[key] == now.step,
        k.layer_of(key),
        k.touched[key],
    ),
    "least_stale:order=fifo": lambda k, key, now: (
        k.touched_step[key] == now.step,
        k.queued[key],
    ),
    "least_stale:order=recent": lambda k, key, now: (
        k.touched_step[key] == now.step,
        k.touched[key],
    ),
}


class LRFU:
    """Lee et al. 2001: every use at time t is worth 2**(-decay * (now - t)); least value leaves."""

    def __init__(self, know, capacity, decay=0.05, restart=True):
        self.decay, self.value, self.last, self.rank = decay, {}, {}, {}
        self.touch, self.restart = {}, restart

    def used(self, key, now):
        age = now.clock - self.last.get(key, 0)
        self.value[key] = 1.0 + self.value.get(key, 0.0) * 2.0 ** (-self.decay * age)
        self.last[key] = now.clock
        self.rank[key] = log2(self.value[key]) + self.decay * self.last[key]
        self.touch[key] = now.clock

    def entered(self, key, now, prefetched):
        self.touch[key] = now.clock
        if prefetched:
            self.rank[key] = self.decay * now.clock
        else:
            self.used(key, now)

    def left(self, key):
        if self.restart:
            self.value.pop(key, None)
            self.last.pop(key, None)

    def victim(self, able, incoming, now):
        return min(able, key=lambda key: (self.rank[key], self.touch[key], -key), default=None)


class Queues:
    """Rules of queues. A queue is a list, the newest first."""

    def __init__(self, know, capacity):
        self.know, self.capacity = know, capacity
        self.queue = {name: [] for name in self.NAMES}
        self.waiting = {}  # prefetched, not used so far: the ghosts it came from

    def place(self, key):
        return next((name for name, queue in self.queue.items() if key in queue), None)

    def move(self, key, name):
        held = self.place(key)
        if held:
            self.queue[held].remove(key)
        if name:
            self.queue[name].insert(0, key)

    def oldest(self, name, able):
        return next((key for key in reversed(self.queue[name]) if key in able), None)


class SLRU(Queues):
    NAMES = ("probation", "protected")

    def used(self, key, now):
        share = max(1, int(self.capacity * 0.8))
        limit = min(share, max(self.capacity - 1, 0))
        first = self.waiting.pop(key, "used") != "used"
        if first or (self.place(key) == "probation" and limit == 0):
            self.move(key, "probation")
            return
        if self.place(key) == "probation" and len(self.queue["protected"]) == limit:
            demoted = self.queue["protected"][-1]
            self.queue["probation"].remove(key)
            self.move(demoted, "probation")
        self.move(key, "protected")

    def entered(self, key, now, prefetched):
        self.move(key, "probation")
        if prefetched:
            self.waiting[key] = None

    def left(self, key):
        self.waiting.pop(key, None)
        self.move(key, None)

    def victim(self, able, incoming, now):
        found = self.oldest("probation", able)
        return self.oldest("protected", able) if found is None else found


class ARC(Queues):
    """T1 and T2 hold what is resident, B1 and B2 what left them; p is the wanted size of T1."""

    NAMES = ("t1", "t2", "b1", "b2")
    p = 0.0
    new = 0  # 1 while making room for a key that is in none of the four

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.left_behind = {}  # a ghost about to be prefetched

    def used(self, key, now):
        ghost = self.waiting.pop(key, "used")
        if ghost in ("b1", "b2"):
            self.learn(ghost)
        self.move(key, "t1" if ghost is None else "t2")

    def entered(self, key, now, prefetched):
        ghost = self.left_behind.pop(key, None) or self.place(key)
        if prefetched:
            self.waiting[key] = ghost
            self.move(key, "t1")
            return
        seen = ghost is not None or self.know.regretted == key
        self.know.regretted = None
        self.move(key, "t2" if seen else "t1")

    def left(self, key):
        self.move(key, self.waiting.pop(key, "b1" if self.place(key) == "t1" else "b2"))
        size = {name: len(queue) for name, queue in self.queue.items()}
        if size["t1"] + size["b1"] + self.new > self.capacity:
            del self.queue["b1"][-1:]
        elif sum(size.values()) + self.new > 2 * self.capacity:
            del self.queue["b2"][-1:]

    def learn(self, ghost):
        """Move p by the ratio of the ghosts' lengths; the key itself counts, and is in neither."""
        other = len(self.queue["b2" if ghost == "b1" else "b1"])
        step = max(1.0, other / (len(self.queue[ghost]) + 1))
        step = step if ghost == "b1" else -step
        self.p = min(max(self.p + step, 0.0), float(self.capacity))

    def victim(self, able, incoming, now):
        ghost = self.place(incoming) if incoming is not None else None
        self.new = int(incoming is not None and not ghost and incoming != self.know.regretted)
        if ghost and incoming in now.tokens:
            self.move(incoming, None)
            self.learn(ghost)
            self.know.regretted = incoming
        ones = len(self.queue["t1"])
        first = ones >= 1 and (ones > self.p or (ghost == "b2" and ones == self.p))
        names = ("t1", "t2") if first else ("t2", "t1")
        found = self.oldest(names[0], able)
        found = self.oldest(names[1], able) if found is None else found
        if ghost and incoming not in now.tokens and found is not None:  # to be prefetched
            self.move(incoming, None)
            self.left_behind[incoming] = ghost
        return found


class S3FIFO(Queues):
    """SMALL, MAIN and GHOST; two uses earn a place in MAIN; what is held stays where it is."""

    NAMES = ("small", "main", "ghost")

    def __init__(self, know, capacity, warm=False):
        super().__init__(know, capacity)
        self.cold = warm
        self.uses = Counter()
        self.small = max(1, round(capacity * 0.1))
        self.ghosts = max(1, int(capacity * 0.9))

    def used(self, key, now):
        ghost = self.waiting.pop(key, "used")
        if ghost == "used":
            self.uses[key] = min(3, self.uses[key] + 1)
        elif ghost:
            self.move(key, "main")

    def entered(self, key, now, prefetched):
        ghost = self.place(key)
        full = len(self.queue["small"]) >= self.small
        self.move(key, "small")
        if prefetched:
            self.waiting[key] = ghost
        elif ghost or (self.cold and full):
            self.move(key, "main")
        self.uses[key] = 0

    def left(self, key):
        if self.waiting.pop(key, "used") and self.place(key) == "small":
            self.queue["ghost"] = self.queue["ghost"][: self.ghosts - 1]
            self.move(key, "ghost")
        else:
            self.move(key, None)

    def victim(self, able, incoming, now):
        self.cold = False
        small = len(self.queue["small"]) >= self.small
        order = ("small", "main") if small else ("main", "small", "main")
        for sweep in order:
            found = getattr(self, sweep + "_leaves")(able)
            if found is not None:
                return found
        return None

    def small_leaves(self, able):
        for key in reversed(self.queue["small"][:]):
            if self.uses[key] >= 2:
                self.uses[key] = 0
                self.move(key, "main")
            elif key in able:
                return key
        return None

    def main_leaves(self, able):
        while True:
            for key in reversed(self.queue["main"][:]):
                if self.uses[key] == 0 and key in able:
                    return key
                if self.uses[key] > 0:
                    self.uses[key] -= 1
                    self.move(key, "main")
            if not any(self.uses[key] for key in self.queue["main"]):
                return self.oldest("main", able)


class Sieve(Queues):
    """The hand stands on a key, or nowhere: then it starts from the oldest."""

    NAMES = ("line",)
    hand = None

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.visited = set()

    def used(self, key, now):
        if self.waiting.pop(key, "used") == "used":
            self.visited.add(key)

    def entered(self, key, now, prefetched):
        self.visited.discard(key)
        self.move(key, "line")
        if prefetched:
            self.waiting[key] = None

    def newer(self, key):
        line = self.queue["line"]
        at = line.index(key)
        return line[at - 1] if at > 0 else None

    def left(self, key):
        if self.hand == key:
            self.hand = self.newer(key)
        self.waiting.pop(key, None)
        self.move(key, None)

    def victim(self, able, incoming, now):
        if not able:
            self.visited.clear()
        key = self.hand
        while able:
            if key is None:
                key = self.queue["line"][-1]
            if key in able and key not in self.visited:
                self.hand = key
                return key
            self.visited.discard(key)
            key = self.newer(key)
        return None


class Moving:
    """One LRU a layer; the layer most above its target gives; ghosts move credits of 1/16."""

    def __init__(self, know, capacity):
        self.know, self.capacity, self.here, self.gone = know, capacity, [], {}

    def used(self, key, now):
        pass

    def entered(self, key, now, prefetched):
        layer, target = self.know.layer_of(key), self.know.target
        if key in self.gone.get(layer, [])[-8:]:
            other = below(self.know.layers, 0, now.clock * self.know.experts + key)
            if target[other] >= 1 + 1 / 16 and target[layer] < self.know.experts:
                target[layer] += 1 / 16
                target[other] -= 1 / 16
        self.here.append(key)

    def left(self, key):
        self.here.remove(key)
        gone = self.gone.setdefault(self.know.layer_of(key), [])
        gone[:] = [each if each != key else None for each in gone] + [key]

    def victim(self, able, incoming, now):
        layers = Counter(
            map(self.know.layer_of, [*self.here, *([] if incoming is None else [incoming])])
        )

        def over(key):
            layer = self.know.layer_of(key)
            return layers[layer] - self.know.target[layer], layer

        return min(
            able, key=lambda k: (*(-x for x in over(k)), self.know.touched[k], -k), default=None
        )


QUEUES = {
    "moving": Moving,
    "slru": SLRU,
    "arc": ARC,
    "s3fifo": S3FIFO,
    "s3fifo:warm=true": partial(S3FIFO, warm=True),
    "sieve": Sieve,
    "lrfu": LRFU,
    "lrfu:resident=false": partial(LRFU, restart=False),
}


class Reference:
    """The contract, read literally. One rule a pool."""

    def __init__(
        self,
        steps,
        layers,
        experts,
        pools,
        capacity,
        name,
        *,
        bypass=False,
        guard=False,
        popularity,
        rule=None,
        kept=(),
        top_k=0,
    ):
        """`rule` makes the rule of a pool of what is known and its slots; `kept` is pinned."""
        self.steps, self.capacity, self.bypass, self.guard = steps, capacity, bypass, guard
        self.per_pool = layers * experts // pools
        self.know = Knowledge(
            steps,
            layers,
            experts,
            top_k=top_k,
            popularity=popularity,
            kept=tuple(kept),
            slots=capacity,
        )
        if rule is not None:
            self.rules = [rule(self.know, c) for c in capacity]
        elif name in QUEUES:
            even = layers * experts // pools, layers // pools
            self.know.target = {
                layer: min(capacity[layer // even[1]], even[0]) / even[1] for layer in range(layers)
            }
            self.rules = [QUEUES[name](self.know, c) for c in capacity]
        else:
            forget = "resident" in name
            self.rules = [Ranked(RANKS[name], self.know, c, forget) for c in capacity]
        self.frozen = name.partition(":")[0] == "static"
        self.kept = list(kept)
        self.resident = {}  # key: {"used": bool, "prefetched": bool, "due": clock}
        self.slotless = self.know.slotless
        self.ever = set()
        self.evicted_in = {}
        for pool, slots in enumerate(capacity if name == "static" else ()):
            keys = range(pool * self.per_pool, (pool + 1) * self.per_pool)
            self.kept += sorted(keys, key=lambda key: -popularity[key])[:slots]
        for key in self.kept:
            self.resident[key] = {"used": True, "prefetched": False, "due": None}
            self.ever.add(key)
        self.log = []
        self.count = Counter()

    def rule(self, key):
        return self.rules[key // self.per_pool]

    def residents(self, pool):
        return [key for key in self.resident if key // self.per_pool == pool]

    def touch(self, key, now):
        know = self.know
        know.entries += 1
        if know.touched_step.get(key) != now.step or key not in self.resident:
            know.queued[key] = know.entries
        know.touched[key], know.touched_step[key] = now.clock, now.step

    def enter(self, key, now, prefetched, due=None):
        self.touch(key, now)
        self.know.entered[key] = self.know.entries
        self.resident[key] = {"used": not prefetched, "prefetched": prefetched, "due": due}
        self.ever.add(key)
        self.rule(key).entered(key, now, prefetched)

    def leave(self, key, now):
        stay = self.resident.pop(key)
        self.rule(key).left(key)
        self.count["evictions"] += 1
        self.count["unused_evictions"] += not stay["used"]
        self.count["wasted"] += stay["prefetched"] and not stay["used"]
        self.evicted_in[key] = now.step
        self.log.append((EVICT, key))

    def run(self):
        for now in self.steps:
            self.log.append(("event", now.clock))
            self.serve(now)
        self.count["wasted"] += sum(
            stay["prefetched"] and not stay["used"] for stay in self.resident.values()
        )
        return self.log, {name: self.count[name] for name in COUNTS}

    def serve(self, now):
        count, know = self.count, self.know
        demanded = sorted(now.tokens)
        for rule in self.rules:
            if hasattr(rule, "begins"):
                rule.begins(now)
        hits = [key for key in demanded if key in self.resident]
        misses = [key for key in demanded if key not in self.resident]
        for key in demanded:
            know.uses[key] += 1
        count["accesses"] += len(demanded)
        count["tokens"] += sum(now.tokens.values())
        count["token_hits"] += sum(now.tokens[key] for key in hits)
        for key in hits:
            stay = self.resident[key]
            count["reuse_hits" if stay["used"] else "prefetch_hits"] += 1
            stay["used"] = True
            self.log.append((HIT, key))
            self.touch(key, now)
            self.rule(key).used(key, now)
        for key in misses:
            kind = "compulsory"
            if key in self.ever:
                kind = "collision" if self.evicted_in.get(key) == now.step else "capacity"
            count[kind] += 1
        for key in misses:
            self.fetch(key, now)
        under_way = set()
        for key, due in now.proposals:
            self.prefetch(key, due, now, under_way)
        for pool in range(len(self.capacity)):
            self.narrow(pool, now, under_way)

    def fetch(self, key, now):
        pool = key // self.per_pool
        self.log.append((FETCH, key))
        if self.frozen:
            self.ever.add(key)
            self.count["bypassed"] += 1
            return
        residents = self.residents(pool)
        if len(residents) >= self.capacity[pool]:
            able = [k for k in residents if k not in now.tokens]
            leaving = None
            if not self.bypass:
                leaving = self.rules[pool].victim(able, key, now)
                if leaving is None:  # waiting for a prefetch to land is in vain: ask again
                    leaving = self.rules[pool].victim(able, key, now)
            if leaving is None:
                self.slotless.add(key)
            else:
                self.leave(leaving, now)
        self.enter(key, now, False)

    def prefetch(self, key, due, now, under_way):
        pool = key // self.per_pool
        if key in self.resident or key in now.tokens:
            self.count["redundant"] += 1
            return
        if self.frozen:
            self.count["dropped"] += 1
            return
        residents = self.residents(pool)
        if len([k for k in residents if k not in self.slotless]) >= self.capacity[pool]:
            able = [
                k
                for k in residents
                if k not in now.tokens and k not in under_way and not self.guarded(k, due, now)
            ]
            leaving = self.rules[pool].victim(able, key, now)
            if leaving is None:
                self.count["dropped"] += 1
                return
            self.leave(leaving, now)
        self.log.append((PREFETCH, key))
        self.count["issued"] += 1
        self.enter(key, now, True, due)
        under_way.add(key)

    def guarded(self, key, due, now):
        stay = self.resident[key]
        waits = stay["prefetched"] and not stay["used"] and stay["due"] > now.clock
        return self.guard and waits and stay["due"] <= due

    def narrow(self, pool, now, under_way):
        """End of the event: the best of all that is there stay."""
        while len(residents := self.residents(pool)) > self.capacity[pool]:
            able = [key for key in residents if key not in under_way]
            key = self.rules[pool].victim(able, None, now)
            if self.bypass and key in self.slotless:
                self.resident.pop(key)
                self.rule(key).left(key)
                self.count["bypassed"] += 1
                self.log.append((BYPASS, key))
            elif key in self.slotless:
                self.leave(key, now)
            else:  # its slot goes to the first key that still has none
                self.leave(key, now)
                waiting = [k for k in self.slotless if k // self.per_pool == pool]
                self.slotless.discard(min(waiting, default=None))
            self.slotless.discard(key)
        self.slotless -= {key for key in self.slotless if key // self.per_pool == pool}


def random_steps(seed, *, prefetches=False):
    """A small random trace, and the same as a list of events with random proposals."""
    rng = np.random.default_rng(seed)
    layers, experts = int(rng.integers(1, 5)), int(rng.integers(2, 8))
    top_k = int(rng.integers(1, min(4, experts) + 1))
    tokens = int(rng.integers(10, 36))
    favour = rng.exponential(size=(layers, experts)) ** 2 + 1e-3
    race = rng.exponential(size=(tokens, layers, experts)) / favour
    ids = np.argsort(race, axis=-1)[..., :top_k]
    step = np.cumsum(rng.random(tokens) < rng.choice([0.4, 0.8, 1.0])).astype(int)
    more = np.random.default_rng([seed, 1])
    phase = (more.random(tokens + 1) < 0.8).astype(int)[step]
    weights = more.random(ids.shape).astype(np.float32)
    step -= step[0]
    trace = build_trace(ids, num_experts=experts, step=step, phase=phase, weights=weights)
    steps, clock = [], 1
    for number, value in enumerate(np.unique(trace.step)):
        inside = np.asarray(trace.step) == value
        rows = ids[inside]
        for layer in range(layers):
            gates = Counter()
            for row, weight in zip(rows[:, layer], weights[inside, layer], strict=True):
                for expert, value in zip(row, weight, strict=True):
                    gates[int(expert) + layer * experts] += float(value)
            chosen = Counter((rows[:, layer] + layer * experts).reshape(-1).tolist())
            proposals = []
            if prefetches:
                keys = rng.permutation(layers * experts)[: int(rng.integers(0, 5))]
                proposals = [(int(key), clock + int(rng.integers(1, 5))) for key in keys]
            told = dict(chosen), proposals, dict(gates), int(phase[inside][0])
            steps.append(Step(clock, number, layer, *told))
            clock += 1
    return trace, steps


class Telling(list):
    """A link that lands everything before the next event, and tells when events begin."""

    def settle(self, core, event):
        LOG.append(("event", event.clock))
        for key in self:
            core.state[key] = READY
            core.hold[key] -= 1
        self.clear()

    def prefetch(self, core, key, score, event):
        assert core.state[key] == LOADING
        self.append(key)


LOG = []


def tell(core, entry, key):
    LOG.append((entry, int(key)))


def core_log(
    trace,
    steps,
    name,
    capacity,
    *,
    admission=residency.FORCED,
    guard=False,
    seed=0,
    popularity=None,
    gate=None,
    staging=0,
    training=None,
):
    """Run the core over the same events; return its log, its counters, and its last state."""
    header = trace.header
    choice = choose("evict", name)
    needs = choice.entry.needs
    world = World.of(header, capacity, seed=seed, popularity=popularity, training=training)
    stream = EventStream(trace, weights="weights" in needs, future="future" in needs)
    chunk = stream.chunk(0, stream.num_steps)
    if any(now.proposals for now in steps):
        flat = [proposal for now in steps for proposal in now.proposals]
        chunk = chunk._replace(
            prefetch_start=np.cumsum([0, *(len(now.proposals) for now in steps)]),
            prefetch_keys=np.array([key for key, _ in flat]),
            prefetch_due=np.array([due for _, due in flat]),
            prefetch_score=np.zeros(len(flat)),
        )
    kernel = Kernel(
        world,
        choice,
        Telling(),
        admission=admission,
        gate=None if gate is None else (world, gate),
        guarded=guard,
        staging=staging,
        interpreted=True,
        future=stream.first_use,
        also={residency.log: tell},
    )
    LOG.clear()
    kernel.run(chunk)
    total = kernel.final_counters.sum(axis=(0, 1)).tolist()
    return list(LOG), dict(zip(COUNTS, total[: len(COUNTS)], strict=True)), kernel.core
