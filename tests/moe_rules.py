"""The rules of policies that know of layers, steps and router weights, in plain Python.

Written from their sources, not from the policies: dicts and full scans, nothing clever. A rule is
made for each pool; `begins` tells it of every event before anything is classified.
"""

import math
from collections import Counter, deque
from functools import partial

import numpy as np


class Rule:
    """The smallest rank leaves; of equals the larger key."""

    def __init__(self, know, capacity):
        self.know = know
        self.touched, self.touched_step, self.entry = {}, {}, {}
        self.steps = []  # numbers of the steps begun
        self.setup()

    def setup(self):
        pass

    def layer(self, key):
        return key // self.know.experts

    def begins(self, now):
        if now.step not in self.steps:
            self.steps.append(now.step)

    def touch(self, key, now):
        self.touched[key], self.touched_step[key] = now.clock, now.step

    def used(self, key, now):
        self.touch(key, now)

    def entered(self, key, now, prefetched):
        self.touch(key, now)
        self.entry[key] = now.clock

    def left(self, key):
        pass

    def stale(self, key, now):
        return self.touched_step[key] != now.step

    def victim(self, able, incoming, now):
        return min(able, key=lambda key: (self.rank(key, now), -key), default=None)


class ByAccess(Rule):
    def victim(self, able, incoming, now):
        return super().victim([key for key in able if self.stale(key, now)] or able, incoming, now)

    def rank(self, key, now):
        return self.touched[key]


class InQueues(Rule):
    """Two dicts, in order of insertion: as the program has it."""

    def setup(self):
        self.fresh, self.old = {}, {}

    def begins(self, now):
        if now.step not in self.steps:
            self.old.update(self.fresh)
            self.fresh.clear()
        super().begins(now)

    def used(self, key, now):
        if key in self.old:
            del self.old[key]
            self.fresh[key] = None

    def entered(self, key, now, prefetched):
        self.fresh[key] = None

    def left(self, key):
        self.fresh.pop(key, None)
        self.old.pop(key, None)

    def victim(self, able, incoming, now):
        return next((key for key in [*self.old, *self.fresh] if key in able), None)


class LayerFIFO(ByAccess):
    def rank(self, key, now):
        return self.layer(key), self.entry[key]


class Spatial(Rule):
    def rank(self, key, now):
        passed = self.layer(key) <= now.layer
        if self.stale(key, now):
            return 0 if passed else 1, 0, self.touched[key]
        return 2 if passed else 3, 0 if passed else -self.layer(key), self.touched[key]


class MinLayer(Rule):
    def rank(self, key, now):
        return self.layer(key)


class Overdue(Rule):
    def setup(self):
        self.last_use, self.mean = {}, {}

    def begins(self, now):
        for key in now.tokens:
            if key in self.last_use:
                gap = now.clock - self.last_use[key]
                self.mean[key] = 0.5 * self.mean.get(key, gap) + 0.5 * gap
            self.last_use[key] = now.clock

    def rank(self, key, now):
        return -(now.clock - self.touched[key] - self.mean.get(key, -math.inf))


class Farthest(Rule):
    def setup(self):
        self.last_use, self.mean = {}, {}

    def used(self, key, now):
        if key in self.last_use:
            gap = now.clock - self.last_use[key]
            self.mean[key] = 0.75 * self.mean[key] + 0.25 * gap if key in self.mean else gap
        self.last_use[key] = now.clock
        self.touch(key, now)

    def entered(self, key, now, prefetched):
        self.touch(key, now)
        if not prefetched:
            self.last_use[key] = now.clock

    def left(self, key):
        self.last_use.pop(key, None)
        self.mean.pop(key, None)

    def rank(self, key, now):
        return -(self.touched[key] + max(self.mean.get(key, 0), 1)), -self.touched[key]


class Score(Rule):
    def rank(self, key, now):
        begun = len(self.steps) - 1
        age = begun - self.steps.index(self.touched_step[key])
        depth = self.layer(key) / self.know.layers
        frequency = self.know.uses[key] / max(begun, 1)
        return 0.4 * frequency + 0.4 * math.exp(-age / 100) + 0.2 * (1.0 - depth)


class MRS(Rule):
    def setup(self, alpha=0.5):
        self.score, self.alpha = Counter(), alpha

    def begins(self, now):
        best = sorted(now.gates, key=lambda key: (-now.gates[key], key))[: 2 * self.know.top_k]
        for expert in range(self.know.experts):
            key = now.layer * self.know.experts + expert
            self.score[key] *= 1.0 - self.alpha
            if key in best:
                self.score[key] += self.alpha * now.gates[key]

    def rank(self, key, now):
        return self.score[key]


class GateEMA(MRS):
    fade = False

    def setup(self):
        super().setup(alpha=0.3)

    def begins(self, now):
        for expert in range(self.know.experts):
            key = now.layer * self.know.experts + expert
            if self.fade or key in now.gates:
                weight = now.gates.get(key, 0.0)
                self.score[key] = self.score[key] * (1.0 - self.alpha) + self.alpha * weight


class FadingGateEMA(GateEMA):
    fade = True


class DALI(Rule):
    """As the program has it: what was cold at its last access, in an ordered dict."""

    def __init__(self, know, capacity, window=256, hot=0.1):
        if know.history is None:
            know.history = deque(maxlen=window)  # of all pools
        self.history, self.least = know.history, max(1, int(window * hot))
        super().__init__(know, capacity)
        self.cold = set()

    def judge(self, key):
        hot = self.history.count(key) >= self.least
        (self.cold.discard if hot else self.cold.add)(key)

    def used(self, key, now):
        self.touch(key, now)
        self.history.append(key)
        self.judge(key)

    def entered(self, key, now, prefetched):
        super().entered(key, now, prefetched)
        if not prefetched:
            self.history.append(key)
        self.judge(key)

    def victim(self, able, incoming, now):
        return super().victim([key for key in able if key in self.cold] or able, incoming, now)

    def rank(self, key, now):
        return self.touched[key] if key in self.cold else self.entry[key]


class TEC(Rule):
    window = 8

    def setup(self):
        # What each layer used, event by event; what is prefetched comes with the last.
        self.visits = {layer: [set()] for layer in range(self.know.layers)}

    def begins(self, now):
        self.visits[now.layer].append(set(now.tokens))

    def entered(self, key, now, prefetched):
        super().entered(key, now, prefetched)
        self.visits[self.layer(key)][-1].add(key)

    def rank(self, key, now):
        inside = any(key in seen for seen in self.visits[self.layer(key)][-self.window :])
        return (1, self.touched[key]) if inside else (0, self.know.uses[key], self.touched[key])


class ShortTEC(TEC):
    window = 2


class Heat(Rule):
    def __init__(self, know, capacity, hot=4):
        super().__init__(know, capacity)
        self.hot, self.hits = hot, Counter()

    def used(self, key, now):
        self.touch(key, now)
        self.hits[key] += 1

    def entered(self, key, now, prefetched):
        self.touch(key, now)
        self.hits[key] = 0

    def victim(self, able, incoming, now):
        cold = [key for key in able if self.hits[key] <= self.hot]
        return super().victim(cold or able, incoming, now)

    def rank(self, key, now):
        return self.touched[key]


class Infinity(Rule):
    def setup(self):
        self.matrix, self.phase = Counter(), 0

    def begins(self, now):
        if now.phase == 0 and self.phase == 1:
            self.matrix.clear()
        self.phase = now.phase
        self.matrix.update(now.tokens)

    def of_layer(self, layer):
        return sum(count for key, count in self.matrix.items() if self.layer(key) == layer)

    def rank(self, key, now):
        share = self.matrix[key] / max(self.of_layer(self.layer(key)), 1)
        return (share + 1e-6) * (1.0 - self.layer(key) / self.know.layers)


class InfinityCode(Infinity):
    """The three matrices of `priority_score`, as numpy has them."""

    def used(self, key, now):
        self.know.hits[key] += 1

    def left(self, key):
        del self.know.hits[key]

    def matrices(self, now):
        layers, experts, half = self.know.layers, self.know.experts, self.know.layers // 2
        frequency, sequence = np.zeros((layers, experts)), np.zeros((layers, experts))
        for key in range(layers * experts):
            frequency[divmod(key, experts)] = self.know.hits[key]
            sequence[divmod(key, experts)] = self.matrix[key]
        for part in (frequency[half:], frequency[:half]):
            if part.sum() == 0:
                part[:] = 1
        depth = np.ones((layers, experts))
        for layer in range(layers):
            same = (layer < half) == (now.layer < half)
            if not (same and layer <= now.layer):
                early = layer < half
                depth[layer] = 1 - layer / half if early else (layer - half) / (half + 1)
        sequence[sequence.sum(axis=1) == 0] = 1
        sequence /= sequence.sum(axis=1, keepdims=True)
        return [m / m.sum() + 1e-6 for m in (depth, sequence, frequency)]

    def victim(self, able, incoming, now):
        score = np.prod(self.matrices(now), axis=0)
        return min(able, key=lambda key: (score.flat[key], -key), default=None)


class Hobbit(Rule):
    """Each of the four terms between 0 and 1; `parts` are their weights: LRU, LFU, LHU, FLD."""

    parts = (1, 1, 1, 1)

    def setup(self):
        self.often, self.high, self.phase, self.seen = Counter(), Counter(), 0, []

    def begins(self, now):
        if now.phase == 0 and self.phase == 1:
            self.often.clear()
            self.high.clear()
            self.seen = []
        self.phase = now.phase
        if now.step not in self.seen:
            self.seen.append(now.step)
        total = sum(now.gates[key] for key in sorted(now.gates))
        for key, gate in now.gates.items():
            above = [now.gates[k] for k in sorted(now.gates) if now.gates[k] > gate]
            self.often[key] += 1
            self.high[key] += sum(above) <= 0.6 * total

    def rank(self, key, now):
        recency, frequency, high, distance = self.parts
        ahead = (self.layer(key) - now.layer - 1) % self.know.layers
        uses = frequency * self.often[key] + high * self.high[key]
        near = distance * (1 - ahead / self.know.layers)
        return recency / now.clock * self.touched[key] + 1.0 / len(self.seen) * uses + near


class OtherHobbit(Hobbit):
    parts = (0.5, 0.25, 0.75, 1)


class FineMoE(Rule):
    def rank(self, key, now):
        first = self.layer(key) * self.know.experts
        total = sum(self.know.popularity[first : first + self.know.experts])
        share = self.know.popularity[key] / total if total else 0.0
        return share * (1 + self.know.uses[key])


class Threshold(Rule):
    window, share = 100, 0.05

    def setup(self):
        self.visits = {layer: deque(maxlen=self.window) for layer in range(self.know.layers)}

    def begins(self, now):
        self.visits[now.layer].append(set(now.tokens))

    def rank(self, key, now):
        uses = sum(key in seen for seen in self.visits[self.layer(key)])
        return uses >= self.share * self.window, self.touched[key]


class ShortThreshold(Threshold):
    window, share = 5, 0.4


class Hysteresis(Rule):
    """The hottest miss against the coldest resident, pair by pair."""

    def __init__(self, know, capacity, ratio=1.3, dwell=0, cap=None):
        super().__init__(know, capacity)
        self.ratio, self.dwell, self.cap = ratio, dwell, math.inf if cap is None else cap
        know.swaps = {}  # step: swaps, in whatever pool

    def setup(self):
        self.heat = Counter()

    def begins(self, now):
        if now.step not in self.steps:
            for key in self.heat:
                self.heat[key] *= 0.999
        super().begins(now)
        for key in now.tokens:
            self.heat[key] += 1.0

    def rank(self, key, now):
        return self.heat[key]

    def victim(self, able, incoming, now):
        misses = [key for key in able if key in self.know.slotless]
        if incoming is not None:
            return super().victim(able, incoming, now)
        misses.sort(key=lambda key: (-self.heat[key], key))
        residents = [
            key
            for key in able
            if key not in misses
            and now.clock - self.entry[key] >= max(self.dwell * self.know.layers, 1)
        ]
        residents.sort(key=lambda key: (self.heat[key], -key))
        swaps = 0
        for miss, resident in zip(misses, residents, strict=False):
            room = self.know.swaps.get(now.step, 0) + swaps < self.cap
            if not (room and self.heat[miss] > self.ratio * self.heat[resident]):
                break
            swaps += 1
        if swaps < len(misses):
            return misses[-1]
        self.know.swaps[now.step] = self.know.swaps.get(now.step, 0) + 1
        return residents[0]


class HotTail(Rule):
    """LRU of what is not pinned."""

    def victim(self, able, incoming, now):
        return super().victim([key for key in able if key not in self.know.kept], incoming, now)

    def rank(self, key, now):
        return self.touched[key]


class Pinned(Rule):
    """Nothing ever leaves."""


def hot_set(name, rows, layers, experts, pools, capacity, popularity):
    """Keys of a hot set. `rows` are (layer, experts of a token by falling weight)."""
    per_pool, kept = layers * experts // pools, []
    for pool, slots in enumerate(capacity):
        keys = range(pool * per_pool, (pool + 1) * per_pool)
        mine = [(layer, chosen) for layer, chosen in rows if layer * experts in keys]
        if "share" in name:
            slots = int(slots * float(name.partition("=")[2]))
        if "layer_quota" in name:
            inside = [layer for layer in range(layers) if layer * experts in keys]
            for turn, layer in enumerate(inside):
                quota = slots // len(inside) + (turn < slots % len(inside))
                own = range(layer * experts, (layer + 1) * experts)
                kept += sorted(own, key=lambda key: -popularity[key])[:quota]
        elif "rank_weighted" in name:
            worth = Counter()
            for layer, chosen in mine:
                for rank, expert in enumerate(chosen):
                    worth[layer * experts + expert] += len(chosen) - rank
            kept += sorted(keys, key=lambda key: -worth[key])[:slots]
        elif "coverage" in name:
            kept += cover(keys, [{la * experts + e for e in chosen} for la, chosen in mine], slots)
        else:
            kept += sorted(keys, key=lambda key: -popularity[key])[:slots]
    return kept


def cover(keys, rows, slots):
    """Greedy set cover, round after round."""
    taken, left = [], []
    while len(taken) < slots:
        gain = {key: sum(key in row for row in left) for key in keys if key not in taken}
        best = min(gain, key=lambda key: (-gain[key], key))
        if gain[best] == 0:
            if len(left) == len(rows):
                return taken + [key for key in keys if key not in taken][: slots - len(taken)]
            left = rows
            continue
        taken.append(best)
        left = [row for row in left if best not in row]
    return taken


PINS = [
    "static:choice=layer_quota",
    "static:choice=rank_weighted",
    "static:choice=coverage",
    "hot_tail",
    "hot_tail:share=0.25",
]
RULES = {
    "ls_2gen_access": ByAccess,
    "ls_2gen_fifo": InQueues,
    "ls_2gen_layerfifo": LayerFIFO,
    "ls_spatial": Spatial,
    "ls_minlayer": MinLayer,
    "ls_ewma_overdue": Overdue,
    "ls_ewma_farthest": Farthest,
    "ls_score": Score,
    "mrs": MRS,
    "gate_ema": GateEMA,
    "gate_ema:fade=true": FadingGateEMA,
    "dali": DALI,
    "dali:window=12,hot=0.2": partial(DALI, window=12, hot=0.2),
    "tec": TEC,
    "tec:window=2": ShortTEC,
    "heat": Heat,
    "heat:hot=1": partial(Heat, hot=1),
    "hobbit": Hobbit,
    "hobbit:lru=0.5,lfu=0.25,lhu=0.75": OtherHobbit,
    "fine_moe": FineMoE,
    "freq_threshold": Threshold,
    "freq_threshold:window=5,share=0.4": ShortThreshold,
    "hysteresis": Hysteresis,
    "hysteresis:ratio=1,dwell=2": partial(Hysteresis, ratio=1, dwell=2),
    "hysteresis:ratio=0.5,cap=1": partial(Hysteresis, ratio=0.5, cap=1),
    "moe_infinity": Infinity,
    "moe_infinity_code": InfinityCode,
}
