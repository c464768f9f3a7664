"""The rule of `expected_use` in plain Python beside the policy, and that it learns what follows."""

import numpy as np
import pytest

from specmd.core.event import World, event_at
from specmd.policy.registry import choose
from specmd.simulation.events import EventStream
from specmd.trace import build_trace


class Expected:
    """Everything by key in dicts, from the words of the policy's file."""

    def __init__(self, layers, experts, top_k):
        self.layers, self.experts, self.top_k = layers, experts, top_k
        keys = range(layers * experts)
        self.means = {key: [top_k / experts] * 3 for key in keys}
        self.weights = [0.3, 0.3, 0.3]
        self.says = {(a, b): 0.0 for a in keys for b in self.beside(a)}
        self.guess, self.p = dict.fromkeys(keys, 0.0), dict.fromkeys(keys, 0.0)
        self.before = [{} for _ in range(layers)]  # last visit: key, share of its tokens
        self.seen, self.batch, self.due = [0.0] * layers, [0.0] * layers, {}

    def beside(self, key):
        first = key // self.experts * self.experts
        return range(first, first + self.experts)

    def visit(self, clock, layer, tokens, decoding):
        keys, width = self.beside(layer * self.experts), len(self.before[layer])
        count = sum(tokens.values()) / self.top_k
        if decoding:
            came = {key: float(key in tokens) for key in keys}
            for row in range(3):
                slope = sum((self.guess[k] - came[k]) * self.means[k][row] for k in keys)
                self.weights[row] -= 0.02 / self.experts * slope
            for told in self.before[layer]:
                for key in keys:
                    error = self.p[key] - came[key]
                    self.says[told, key] -= 0.08 * min(1.0, self.top_k / width) * error
            self.batch[layer] = count
        self.seen[layer] += count
        self.before[layer] = {key: tokens[key] / max(1.0, count) for key in tokens}
        for key in keys:
            used = self.before[layer].get(key, 0.0)
            for row, rate in enumerate((0.0, 0.2, 0.03)):
                move = max(1 - (1 - rate) ** count, count / (self.seen[layer] + 2))
                self.means[key][row] += move * (used - self.means[key][row])
            p = sum(w * mean for w, mean in zip(self.weights, self.means[key], strict=True))
            p = min(max(p, 0.002), 0.998)
            self.guess[key] = 1 - (1 - p) ** max(1.0, self.batch[layer])
            said = sum(self.says[told, key] for told in tokens)
            odds = self.guess[key] / (1 - self.guess[key])
            odds = odds * (1 + said) if said > 0 else odds / (1 - said)
            self.p[key] = odds / (1 + odds)
            self.due[key] = clock / 2 + self.layers / self.p[key]


@pytest.mark.parametrize("seed", range(6))
def test_what_is_due_when_is_as_the_plain_rule_says(seed):
    rng = np.random.default_rng(seed)
    layers, experts, top_k, tokens = 3, 7, 2, 60
    favour = rng.exponential(size=(layers, experts)) ** 2 + 1e-3
    ids = np.argsort(rng.exponential(size=(tokens, layers, experts)) / favour, -1)[..., :top_k]
    step = np.cumsum(rng.random(tokens) < (1.0, 0.5)[seed % 2]).astype(int)
    step -= step[0]
    phase = (step > 3).astype(np.uint8)  # a prompt, then what is decoded
    trace = build_trace(ids, num_experts=experts, step=step, phase=phase)
    policy = choose("evict", "expected_use").create(World.of(trace.header, [5]))
    plain = Expected(layers, experts, top_k)
    stream = EventStream(trace)
    chunk = stream.chunk(0, stream.num_steps)
    for i in range(len(chunk.layer)):
        event = event_at(chunk, i, np.zeros(0, np.int64))
        policy.on_event(event)
        span = slice(event.start, event.stop)
        asked = zip(event.keys[span].tolist(), event.tokens[span].tolist(), strict=True)
        plain.visit(int(event.clock), int(event.layer), dict(asked), bool(event.phase))
        for key, due in plain.due.items():
            assert -policy.rank(key, event) == pytest.approx(due, rel=1e-9), (i, key)


def test_it_learns_which_expert_follows_which():
    turns = np.arange(900) % 6
    trace = build_trace(turns[:, None, None], num_experts=8)
    policy = choose("evict", "expected_use").create(World.of(trace.header, [3]))
    chunk = EventStream(trace).chunk(0, len(turns))
    for i in range(len(turns)):
        event = event_at(chunk, i, np.zeros(0, np.int64))
        policy.on_event(event)
    due = [-policy.rank(key, event) - event.clock / 2 for key in range(8)]
    follower = (turns[-1] + 1) % 6
    assert due[follower] < 2  # most likely at the next visit
    assert min(wait for key, wait in enumerate(due) if key != follower) > 3
