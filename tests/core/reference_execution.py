"""Routing and miss handling in plain Python: the contract and every rule, read literally.

A cache under LRU that is never narrower than an event; tokens, rows and answers as lists and sets.
"""

from collections import Counter
from math import exp, sqrt

import numpy as np

HIT, FETCH, EVICT, HOST, LOWBIT, SUBSTITUTE, DROP, STAND_IN, DEFER = 1, 3, 5, 8, 9, 10, 11, 12, 13


def softmax(logits):
    top = max(logits)
    raised = [exp(z - top) for z in logits]
    return [each / sum(raised) for each in raised]


def ranked(scores):
    return sorted(range(len(scores)), key=lambda e: (-scores[e], e))


class Token:
    """One token in one layer: `true` pairs of expert and weight, best first."""

    def __init__(self, true, logits):
        self.true, self.logits = true, logits
        self.ids, self.weights = [e for e, _ in true], [w for _, w in true]
        self.fate = ["exact"] * len(true)
        self.instead = {}  # place: the expert that stands in

    def execute(self, ids, renormalises):
        known, before = dict(self.true), sum(w for _, w in self.true)
        self.ids, self.fate = list(ids), ["exact"] * len(ids)
        if all(e in known for e in ids):
            self.weights, goal = [known[e] for e in ids], before
        else:
            shares = softmax(self.logits)
            self.weights, goal = [shares[e] for e in ids], 1.0
        if renormalises:
            total = sum(self.weights)
            self.weights = [w * (goal / total) for w in self.weights]

    def shares(self):
        total = sum(self.weights)
        return [w / total for w in self.weights]

    def runs(self, expert):
        kept = [e for e, f in zip(self.ids, self.fate, strict=True) if f in ("exact", "low")]
        return expert in kept or expert in self.instead.values()


class Route:
    """The routing rules. `there` are the experts of the layer that are resident."""

    def __init__(self, name, layers, experts, top_k):
        self.name, _, rest = name.partition(":")
        self.given = dict(part.split("=") for part in rest.split(",") if part)
        self.k = top_k
        self.range = {}
        self.visits, self.uses = Counter(), Counter()
        self.last = Counter()

    def __call__(self, tokens, layer, there, clock, united):
        chosen = [getattr(self, self.name)(token, layer, there, clock) for token in tokens]
        if self.name == "cache_prior":
            spread = np.mean([max(t.logits) - min(t.logits) for t in tokens])
            self.range[layer] = 0.99 * self.range.get(layer, spread) + 0.01 * spread
        self.visits[layer] += 1
        for expert in united:
            self.uses[layer, expert] += 1
            self.last[layer, expert] = clock
        return chosen

    def none(self, token, layer, there, clock):
        return [e for e, _ in token.true]

    def max_rank(self, token, layer, there, clock):
        order = ranked(token.logits)
        always = int(self.given.get("always", 1))
        far = int(self.given.get("ranks", 0)) or -(-3 * self.k // 2)
        preferred = [e for e in order[:far] if e in there]
        return list(dict.fromkeys([*order[:always], *preferred, *order]))[: len(token.true)]

    def cumulative(self, token, layer, there, clock):
        order, shares = ranked(token.logits), softmax(token.logits)
        size, reached = 0, 0.0
        while size < len(order) and reached < float(self.given.get("mass", 0.8)):
            reached += shares[order[size]]
            size += 1
        first = [e for e in order[:size] if e in there]
        return list(dict.fromkeys([*first, *order]))[: len(token.true)]

    def cache_prior(self, token, layer, there, clock):
        usual = self.range.get(layer)
        if usual is None:
            usual = self.first[layer]
        z, strength = token.logits, float(self.given.get("strength", 0.2))
        raised = [z[e] + (strength * usual if e in there else 0.0) for e in range(len(z))]
        always = ranked(z)[: int(self.given.get("always", 2))]
        by_rank = {e: rank for rank, e in enumerate(ranked(z))}
        rest = sorted(range(len(z)), key=lambda e: (-raised[e], by_rank[e]))
        return list(dict.fromkeys([*always, *rest]))[: len(token.true)]

    def eras(self, token, layer, there, clock):
        shares, z = softmax(token.logits), token.logits
        if self.given.get("rule") == "bias":
            visits = max(1, self.visits[layer])
            scores = [
                z[e] + (0.0 if e in there else self.uses[layer, e] / visits - 1.0)
                for e in range(len(z))
            ]
        else:
            bonus = float(self.given.get("bonus", 0.05))
            scores = [shares[e] + (bonus if e in there else 0.0) for e in range(len(z))]
        return ranked(scores)[: len(token.true)]

    def cecar(self, token, layer, there, clock):
        keep = int(self.given.get("keep", 0)) or -(-self.k // 2)
        z, count = token.logits, len(token.true)
        ages = [clock - self.last[layer, e] for e in range(len(z))]
        oldest = max([1, *(ages[e] for e in there)])
        order = ranked(z)
        reach = z[order[0]] - z[order[count - 1]]
        scores = [
            z[e] + (reach * (1 - ages[e] / oldest) if e in there else 0.0) for e in range(len(z))
        ]
        best = ranked(scores)[:count]
        return [e for place, e in enumerate(best) if place < keep or e in there]

    def adaptive_top_k(self, token, layer, there, clock):
        least = sqrt(float(self.given.get("threshold", 0.005)))
        last = max([0, *(i for i, s in enumerate(token.shares()) if s >= least)])
        return [e for e, _ in token.true[: last + 1]]

    def top_k(self, token, layer, there, clock):
        keep = int(self.given.get("keep", 0)) or max(1, self.k - 1)
        return [e for e, _ in token.true[:keep]]


class Miss:
    """The rules of misses: an answer for a key, and what becomes of single tokens."""

    def __init__(self, name, experts, top_k, near, rates):
        self.name, _, rest = name.partition(":")
        self.given = dict(part.split("=") for part in rest.split(",") if part)
        self.experts, self.top_k, self.near, self.rates = experts, top_k, near, rates
        self.plan = {}
        self.prefill = False  # whether the present step is one

    def prepare(self, missing, loads):
        if self.name == "hybrimoe":
            link, host, more, _ = self.rates
            left = sorted(missing, key=lambda key: (loads[key], key))
            link_s = host_s = 0.0
            while left:
                takes = host + (loads[left[0]] - 1) * more
                if host_s + takes <= link_s + link:
                    self.plan[left.pop(0)] = "host"
                    host_s += takes
                else:
                    self.plan[left.pop()] = "fetch"
                    link_s += link
        elif self.name == "freetoken":
            fetched = int(len(missing) * min(1.0, self.rates[1] / self.rates[0]) + 0.5)
            self.plan = {k: "fetch" if i < fetched else "host" for i, k in enumerate(missing)}

    def __call__(self, key, tokens, load, there, missing):
        expert = key % self.experts
        mine = [
            (token, place)
            for token in tokens
            for place, (e, fate) in enumerate(zip(token.ids, token.fate, strict=True))
            if e == expert and fate == "exact"
        ]
        if self.name == "host":
            return "host" if load <= int(self.given.get("tokens", 1)) else "fetch"
        if self.name == "fiddler":
            return "host" if 7.0 * load <= 70.0 else "fetch"
        if self.name in ("hybrimoe", "freetoken"):
            return self.plan[key]
        if self.name == "deferral":
            if self.prefill:
                return "fetch"
            first = max(1, self.top_k - int(self.given.get("deferred", 2)))
            heaviest = [
                sorted(range(len(t.ids)), key=lambda p: (-t.weights[p], p))[:first] for t, _ in mine
            ]
            at_once = any(p in h for (_, p), h in zip(mine, heaviest, strict=True))
            return "host" if at_once else "defer"
        if self.name == "fetch_lowest_bit":
            return "low"
        if self.name == "drop":
            least = float(self.given.get("factor", 0.5)) / self.top_k
            return "fetch" if any(t.shares()[p] >= least for t, p in mine) else "drop"
        if self.name in ("hobbit", "drop_priority_cascade"):
            wishes = [self.before(token, place, missing, key) for token, place in mine]
            full, low = (float(self.given.get(n, d)) for n, d in (("full", 0.6), ("low", 0.9)))
            least = min(wishes)
            return "fetch" if least <= full else "low" if least <= low else "drop"
        if self.name == "substitute":
            for token, place in mine:
                free = [e for e in ranked(token.logits) if e in there and not token.runs(e)]
                if free:
                    shares = softmax(token.logits)
                    token.fate[place], token.instead[place] = "replaced", free[0]
                    token.weights[place] *= shares[free[0]] / shares[expert]
            return "fetch"
        if self.name in ("buddy", "substitution_score"):
            like = {e: self.near[key, e] for e in there if self.near[key, e] > 0}
            if like:
                best = min(like, key=lambda e: (-like[e], e))
                for token, place in mine:
                    token.fate[place], token.instead[place] = "replaced", best
        return "fetch"

    def before(self, token, place, missing, key):
        shares, weights = token.shares(), token.weights
        first = key - key % self.experts
        return sum(
            shares[p]
            for p, e in enumerate(token.ids)
            if (weights[p] > weights[place] or (weights[p] == weights[place] and p < place))
            and (self.name == "hobbit" or first + e in missing)
        )


class Cache:
    """LRU over all keys, served event by event."""

    def __init__(self, slots, layers, experts, top_k, route, miss, *, rule, scales, near, rates):
        self.slots, self.layers, self.experts = slots, layers, experts
        self.route = Route(route, layers, experts, top_k)
        self.miss = Miss(miss, experts, top_k, near, rates)
        self.rule, self.scales = rule, scales
        self.touched, self.low = {}, {}  # of the resident keys
        self.log, self.mass, self.rows = [], Counter(), []
        self.changed = 0

    def serve(self, tokens, layer, clock):
        base = layer * self.experts
        there = {key - base for key in self.touched if base <= key < base + self.experts}
        true = sorted({e for token in tokens for e, _ in token.true})
        if self.route.name == "cache_prior":
            spread = float(np.mean([max(t.logits) - min(t.logits) for t in tokens]))
            self.route.first = {layer: spread}
        if self.route.name != "none":
            chosen = self.route(tokens, layer, there, clock, true)
            for token, ids in zip(tokens, chosen, strict=True):
                token.execute(ids, self.rule)
        loads = Counter(base + e for token in tokens for e in token.ids)
        united, missing = sorted(loads), []
        for key in united:
            if key in self.touched:
                self.log.append((HIT, key))
                self.touched[key] = clock
            else:
                missing.append(key)
        self.miss.prepare(missing, loads)
        fetched, held = [], set(united)
        for key in missing:
            self.answer(key, tokens, loads[key], there, missing, fetched)
        for token in tokens:
            for place in sorted(token.instead):
                key = base + token.instead[place]
                others = [e for i, e in token.instead.items() if i < place]
                if self.stands_alone(token, place, others) and key not in held:
                    held.add(key)
                    self.log.append((STAND_IN, key))
                    self.touched[key] = clock
        for key, small in fetched:
            self.log.append((FETCH, key))
            if len(self.touched) == self.slots:
                able = [k for k in self.touched if k not in held]
                leaving = min(able, key=lambda k: (self.touched[k], -k))
                del self.touched[leaving]
                self.log.append((EVICT, leaving))
            self.touched[key], self.low[key] = clock, small
        for token in tokens:
            self.weigh(token, base)

    def stands_alone(self, token, place, others):
        kept = [
            e for e, fate in zip(token.ids, token.fate, strict=True) if fate in ("exact", "low")
        ]
        return token.instead[place] not in (*kept, *others)

    def answer(self, key, tokens, load, there, missing, fetched):
        said = self.miss(key, tokens, load, there, missing)
        if said == "defer" and key // self.experts == self.layers - 1:
            said = "host"
        expert, left, replaced = key % self.experts, 0, False
        for token in tokens:
            for place, e in enumerate(token.ids):
                if e != expert:
                    continue
                replaced |= token.fate[place] == "replaced"
                if token.fate[place] == "exact":
                    token.fate[place] = {
                        "drop": "dropped", "low": "low", "defer": "later"
                    }.get(said, "exact")  # fmt: skip
                    left += said != "drop"
        if not left:
            self.log.append((SUBSTITUTE if replaced else DROP, key))
        elif said in ("host", "defer"):
            self.log.append((HOST if said == "host" else DEFER, key))
        else:
            if said == "low":
                self.log.append((LOWBIT, key))
            fetched.append((key, said == "low"))

    def weigh(self, token, base):
        known = {e for e, _ in token.true}
        strangers = sum(e not in known for e in token.ids)
        changed = False
        for expert, weight in token.true:
            kind = "dropped"
            if expert in token.ids:
                fate = token.fate[token.ids.index(expert)]
                if (
                    fate == "exact"
                    and self.low.get(base + expert)
                    and base + expert in self.touched
                ):
                    fate = "low"
                kind = {
                    "exact": "kept", "low": "low", "replaced": "substituted", "later": "substituted"
                }.get(fate, kind)  # fmt: skip
            elif strangers:
                strangers -= 1
                kind = "substituted"
            self.mass[kind] += weight
            changed |= kind in ("dropped", "substituted")
        self.changed += changed
        final = Counter()
        before, after = sum(token.weights), 0.0
        for place, (expert, weight) in enumerate(zip(token.ids, token.weights, strict=True)):
            if token.fate[place] != "dropped":
                final[token.instead.get(place, expert)] += weight
                after += weight
        if self.scales and 0 < after < before:
            final = {e: w * before / after for e, w in final.items()}
        self.rows.append(dict(final))
