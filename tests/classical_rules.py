"""The classical rules that `reference.py` has not, as published: lists, dicts, scans and sums.

Importing this puts them into the table of `reference`. `begins` is told of an event before any of
its keys is looked at. No rule shares a line with its policy; the draws of chance are the core's.
"""

from collections import Counter
from fractions import Fraction
from functools import partial
from math import exp, inf

import reference
from reference import Queues, Ranked

from specmd.core.order.chance import fraction


class Clock(Queues):
    """What has uses left goes round once more, for one of them."""

    NAMES = ("line",)

    def __init__(self, know, capacity, bits=1):
        super().__init__(know, capacity)
        self.most, self.uses = 2**bits - 1, Counter()

    def used(self, key, now):
        if self.waiting.pop(key, "used") == "used":
            self.uses[key] = min(self.uses[key] + 1, self.most)

    def entered(self, key, now, prefetched):
        self.move(key, "line")
        self.uses[key] = 0
        if prefetched:
            self.waiting[key] = None

    def left(self, key):
        self.waiting.pop(key, None)
        self.move(key, None)

    def victim(self, able, incoming, now):
        line = self.queue["line"]
        while True:
            for key in reversed(line[:]):
                if self.uses[key] == 0 and key in able:
                    return key
                if self.uses[key] > 0:
                    self.uses[key] -= 1
                    self.move(key, "line")
            if not any(self.uses[key] for key in line):
                return next((key for key in reversed(line) if key in able), None)


class Scored:
    """Rules of a score by key: the least leaves, of equals the one touched longest ago."""

    def __init__(self, know, capacity):
        self.know, self.capacity = know, capacity
        self.uses, self.touch = Counter(), {}

    def used(self, key, now):
        self.uses[key] += self.worth(key, now)
        self.touch[key] = now.clock
        self.scored(key, now)

    def entered(self, key, now, prefetched):
        self.uses[key] = 0 if prefetched else self.worth(key, now)
        self.touch[key] = now.clock
        self.scored(key, now)

    def worth(self, key, now):
        return 1

    def scored(self, key, now):
        pass

    def left(self, key):
        pass

    def victim(self, able, incoming, now):
        return min(able, key=lambda k: (self.score(k, now), self.touch[k], -k), default=None)


class LFUDA(Scored):
    """Uses and the age of the cache at the last touch."""

    age = 0

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.value = {}

    def scored(self, key, now):
        self.value[key] = self.age + self.uses[key]

    def score(self, key, now):
        return self.value[key]

    def left(self, key):
        self.age = max(self.age, self.value[key])


class GDSF(LFUDA):
    def worth(self, key, now):
        return now.tokens[key]


class LCP(Scored):
    def __init__(self, know, capacity, base=Fraction(1, 4), decay=128):
        super().__init__(know, capacity)
        self.base, self.decay, self.step = base, decay, {}

    def scored(self, key, now):
        self.step[key] = now.step

    def score(self, key, now):
        # The power of 1 / decay is left out: it changes no order, and the rest is exact.
        return self.uses[key] ** self.decay * self.base ** (now.step - self.step[key])


class LRUK(Scored):
    def __init__(self, know, capacity, k=2, history=2):
        super().__init__(know, capacity)
        self.k, self.limit = k, max(1, capacity * history)
        self.times, self.ahead, self.gone = {}, set(), []

    def used(self, key, now):
        self.times.setdefault(key, []).append(now.clock)
        self.touch[key] = now.clock
        self.ahead.discard(key)

    def entered(self, key, now, prefetched):
        if key in self.gone:
            self.gone.remove(key)
        if prefetched:
            self.ahead.add(key)
            self.touch[key] = now.clock
        else:
            self.used(key, now)

    def left(self, key):
        self.ahead.discard(key)
        if self.times.get(key):
            self.gone.append(key)
        if len(self.gone) > self.limit:
            del self.times[self.gone.pop(0)]

    def score(self, key, now):
        times = self.times.get(key, [])
        if key in self.ahead:
            times = [*times, self.touch[key]]
        return times[-self.k] if len(times) >= self.k else -inf

    def victim(self, able, incoming, now):
        found = super().victim(able, incoming, now)
        if found is not None and incoming in self.gone:
            self.gone.remove(incoming)
        return found


class TwoQ(Queues):
    NAMES = ("in", "main", "out")

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.aside = {}  # a ghost for which something leaves

    def used(self, key, now):
        origin = self.waiting.pop(key, "used")
        if origin == "out" or (origin == "used" and self.place(key) == "main"):
            self.move(key, "main")

    def entered(self, key, now, prefetched):
        known = self.aside.pop(key, None) or self.place(key)
        if prefetched:
            self.waiting[key] = known
        self.move(key, "main" if known and not prefetched else "in")

    def left(self, key):
        place = self.place(key)
        target = self.waiting.pop(key, "out" if place == "in" else None)
        self.move(key, target)
        del self.queue["out"][max(1, self.capacity // 2) :]

    def victim(self, able, incoming, now):
        names = ("main", "in")
        if len(self.queue["in"]) > max(1, self.capacity // 4):
            names = ("in", "main")
        found = self.oldest(names[0], able)
        found = self.oldest(names[1], able) if found is None else found
        if found is not None and incoming in self.queue["out"]:
            self.aside[incoming] = "out"
            self.move(incoming, None)
        return found


class CAR(Queues):
    """As ARC, with clocks: the bit is looked at when room is needed, and p moves after that."""

    NAMES = ("t1", "t2", "b1", "b2")
    p = 0.0
    new = 0

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.bit, self.aside = set(), {}

    def used(self, key, now):
        ghost = self.waiting.pop(key, "used")
        if ghost == "used":
            self.bit.add(key)
        else:
            self.settle(key, ghost)

    def settle(self, key, ghost):
        """Put in its place a key that was missed, whose ghost is in neither list any more."""
        if ghost:
            other = len(self.queue["b2" if ghost == "b1" else "b1"])
            step = max(1.0, other / (len(self.queue[ghost]) + 1))
            step = step if ghost == "b1" else -step
            self.p = min(max(self.p + step, 0.0), float(self.capacity))
        self.move(key, "t2" if ghost else "t1")

    def entered(self, key, now, prefetched):
        ghost = self.aside.pop(key, None) or self.place(key)
        self.move(key, None)
        if prefetched:
            self.waiting[key] = ghost
            self.move(key, "t1")
        else:
            self.settle(key, ghost)

    def left(self, key):
        self.move(key, self.waiting.pop(key, "b1" if self.place(key) == "t1" else "b2"))
        size = {name: len(queue) for name, queue in self.queue.items()}
        if size["t1"] + size["b1"] + self.new > self.capacity:
            del self.queue["b1"][-1:]
        elif sum(size.values()) + self.new > 2 * self.capacity:
            del self.queue["b2"][-1:]

    def victim(self, able, incoming, now):
        ghost = self.place(incoming) if incoming is not None else None
        self.new = int(incoming is not None and not ghost)
        least = max(1.0, self.p)
        for name, bound in (("t1", least), ("t2", 0), ("t1", 0), ("t2", 0)):
            found = self.sweep(name, bound, able)
            if found is not None:
                if ghost:
                    self.aside[incoming] = ghost
                    self.move(incoming, None)
                return found
        return None

    def sweep(self, name, bound, able):
        """Give every used key of a clock a place in T2, and stop at one that may leave."""
        passed = set()
        while len(self.queue[name]) >= bound:
            key = next((k for k in reversed(self.queue[name]) if k not in passed), None)
            if key is None:
                return None
            if key in self.bit:
                self.bit.remove(key)
                self.move(key, "t2")
            elif key in able:
                return key
            else:
                passed.add(key)
        return None


class LIRS:
    """The stack has its bottom first; `line` its next to leave."""

    def __init__(self, know, capacity):
        self.short = max(1, capacity // (10 if max(know.slots, default=0) < 100 else 100))
        self.most, self.ghosts = capacity - self.short, max(1, 2 * capacity)
        self.stack, self.lir, self.line, self.gone = [], [], [], []

    def used(self, key, now):
        cold = not self.line and len(self.lir) < self.most
        lir = key in self.stack or cold
        for place in (self.stack, self.lir, self.line, self.gone):
            if key in place:
                place.remove(key)
        self.stack.append(key)
        (self.lir if lir else self.line).append(key)
        if len(self.lir) > self.most:
            self.line.append(self.lir.pop(0))
        while len(self.gone) > self.ghosts:
            self.stack.remove(self.gone.pop(0))
        self.prune()

    def entered(self, key, now, prefetched):
        if not prefetched:
            self.used(key, now)
            return
        if key in self.gone:
            self.gone.remove(key)
        self.line.append(key)

    def left(self, key):
        (self.lir if key in self.lir else self.line).remove(key)
        if key in self.stack:
            self.gone.append(key)
        self.prune()

    def prune(self):
        while self.stack and self.stack[0] not in self.lir:
            key = self.stack.pop(0)
            if key in self.gone:
                self.gone.remove(key)

    def victim(self, able, incoming, now):
        return next((key for key in [*self.line, *self.lir] if key in able), None)


class WTinyLFU(Queues):
    NAMES = ("window", "probation", "protected")

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.window = max(1, capacity // 100)
        main = max(capacity - self.window, 0)
        self.protected = min(max(1, int(main * 0.8)), max(main - 1, 0))

    def begins(self, now):
        know = self.know
        if vars(know).setdefault("counted", 0) == now.clock:
            return  # the counters are those of all pools
        know.counted = now.clock
        counts = vars(know).setdefault("counts", Counter())
        for key in sorted(now.tokens):
            counts[key] = min(counts[key] + 1, 15)
            know.seen = vars(know).get("seen", 0) + 1
            if know.seen % (10 * max(1, sum(know.slots))) == 0:
                for other in counts:
                    counts[other] //= 2

    def used(self, key, now):
        first = self.waiting.pop(key, "used") != "used"
        place = self.place(key)
        self.move(key, place if first or place == "window" else "protected")
        if len(self.queue["protected"]) > self.protected:
            self.move(self.queue["protected"][-1], "probation")

    def entered(self, key, now, prefetched):
        self.move(key, "window")
        if prefetched:
            self.waiting[key] = None
        elif len(self.queue["window"]) >= self.window + len(now.tokens):
            self.move(self.queue["window"][-1], "probation")

    def left(self, key):
        self.waiting.pop(key, None)
        self.move(key, None)

    def victim(self, able, incoming, now):
        main = self.oldest("probation", able)
        main = self.oldest("protected", able) if main is None else main
        key = self.oldest("window", able)
        full = len(self.queue["window"]) >= self.window
        counts = self.know.counts
        if main is None or (key is not None and full and counts[key] <= counts[main]):
            return key
        if key is not None and full:
            self.move(key, "probation")
        return main


class AdaptiveWTinyLFU(WTinyLFU):
    """One climber for all pools: it goes on in the direction that raised the hit rate."""

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        step = max(1 / 16, 1 / max(1, *know.slots))
        start = {"share": 0.01, "step": step, "longest": step, "hits": 0, "rate": 0.0, "periods": 0}
        self.climber = vars(know).setdefault("climber", start)
        self.divide()

    def divide(self):
        self.window = max(1, int(self.capacity * self.climber["share"]))
        main = max(self.capacity - self.window, 0)
        self.protected = min(max(1, int(main * 0.8)), max(main - 1, 0))

    def begins(self, now):
        super().begins(now)
        at, sample = self.climber, 10 * max(1, sum(self.know.slots))
        if self.know.seen // sample > at["periods"]:
            rate = at["hits"] / sample
            change, at["rate"] = rate - at["rate"], rate
            step = at["step"] if change >= 0 else -at["step"]
            at["share"] = min(max(at["share"] + step, 0.001), 0.99)
            at["step"] = 0.98 * step
            if abs(change) >= 0.05:
                at["step"] = at["longest"] if step > 0 else -at["longest"]
            at["hits"], at["periods"] = 0, at["periods"] + 1
        self.divide()

    def used(self, key, now):
        self.climber["hits"] += 1
        super().used(key, now)


class Hyperbolic(Scored):
    """Of pools no larger than the sample."""

    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.since = {}

    def entered(self, key, now, prefetched):
        super().entered(key, now, prefetched)
        self.since[key] = now.clock

    def victim(self, able, incoming, now):
        def rank(key):
            return Fraction(self.uses[key], now.clock - self.since[key] + 1), -key

        return min(able, key=rank, default=None)


class LeCaR(Scored):
    def __init__(self, know, capacity):
        super().__init__(know, capacity)
        self.weight, self.order = {"lru": 0.5, "lfu": 0.5}, []
        self.gone = {"lru": [], "lfu": []}
        self.at, self.ahead, self.known, self.nominee = {}, {}, set(), None

    def whose(self, key):
        return next((name for name, keys in self.gone.items() if key in keys), None)

    def regret(self, key, name, now):
        passed = float(now.clock - self.at[key])
        fade = 0.005 ** (1.0 / max(1, self.capacity))
        self.weight[name] *= exp(-0.45 * fade**passed)
        lru = self.weight["lru"] / (self.weight["lru"] + self.weight["lfu"])
        lru = min(max(lru, 0.01), 1.0 - 0.01)
        self.weight = {"lru": lru, "lfu": 1.0 - lru}

    def begins(self, now):
        for key in sorted(now.tokens):
            name = self.whose(key)
            if name:
                self.regret(key, name, now)
                self.gone[name].remove(key)
                self.known.add(key)

    def used(self, key, now):
        name = self.ahead.pop(key, None)
        if name:
            self.regret(key, name, now)
        super().used(key, now)
        self.order.remove(key)
        self.order.append(key)

    def entered(self, key, now, prefetched):
        name = self.whose(key)
        before = self.uses[key] if name or key in self.known else 0
        self.known.discard(key)
        if prefetched:
            self.ahead[key] = name
            if name:
                self.gone[name].remove(key)
        super().entered(key, now, prefetched)
        self.uses[key] += before
        self.order.append(key)

    def left(self, key):
        self.order.remove(key)
        name, self.nominee = self.nominee, None
        if key in self.ahead:
            name = self.ahead.pop(key)
        else:
            self.at[key] = self.know.now
        if name:
            self.gone[name].append(key)
            del self.gone[name][: -max(1, self.capacity)]

    def score(self, key, now):
        return self.uses[key]

    def victim(self, able, incoming, now):
        self.know.now, self.nominee = now.clock, None
        lru = next((key for key in self.order if key in able), None)
        lfu = super().victim(able, incoming, now)
        if lru == lfu:
            return lru
        draw = fraction(0, now.clock * (1 << 20) + lru)
        self.nominee = "lru" if draw < self.weight["lru"] else "lfu"
        return lru if self.nominee == "lru" else lfu


class Aging(Ranked):
    """Counts, of all pools together, are halved when another `every` steps have begun."""

    def __init__(self, know, capacity, every=2, forget=False):
        def rank(k, key, now):
            return k.uses[key], k.touched[key]

        super().__init__(rank, know, capacity, forget)
        self.every = every

    def begins(self, now):
        know = self.know
        if now.step // self.every > vars(know).setdefault("halved", 0):
            know.halved = now.step // self.every
            for key in know.uses:
                know.uses[key] //= 2


CLASSICAL = {
    "clock": Clock,
    "clock:bits=2": partial(Clock, bits=2),
    "lru_k": LRUK,
    "lru_k:k=3": partial(LRUK, k=3),
    "lru_k:ghosts=1,k=1": partial(LRUK, k=1, history=1),
    "two_q": TwoQ,
    "car": CAR,
    "w_tinylfu": WTinyLFU,
    "w_tinylfu_adaptive": AdaptiveWTinyLFU,
    "lirs": LIRS,
    "lfu_da": LFUDA,
    "gdsf": GDSF,
    "gdsf:cost=even": LFUDA,
    "lcp": LCP,
    "lcp:base=0.5,decay=2": partial(LCP, base=Fraction(1, 2), decay=2),
    "hyperbolic": Hyperbolic,
    "lecar": LeCaR,
    "lfu:aging=2": Aging,
    "lfu:aging=3,resident=true": partial(Aging, every=3, forget=True),
}
reference.QUEUES.update(CLASSICAL)
