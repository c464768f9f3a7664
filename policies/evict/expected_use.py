"""Expected use: the key whose next use is expected latest leaves first (experiments/own_answer).

Belady with an estimate for the future: a visit of its layer uses a key with chance p, visits are L
events apart, so the next use is due L / p events after the last visit, of which the place in the
turn counts half (TURN). p weighs the key's share of the layer's tokens and two moving means of it
(for b tokens a step: 1 - (1 - p)^b); its odds change by what each expert of the last visit says of
the next. Weights and sayings learn from the error of p. Misses due late stay out (`bypass`).
"""

from math import pow
from typing import NamedTuple

import numpy as np

from specmd.policy import DECODE, Event, FloatArray, World, policy

RATES, PRIOR, STEP, SAYING_STEP, LEAST, TURN = (0.0, 0.2, 0.03), 2.0, 0.02, 0.08, 0.002, 0.5


@policy("expected_use", source="SpecMD", remembers=True, compiled=True, bypass="bypass")
class ExpectedUse(NamedTuple):
    """What is known of each key, resident or not."""

    reading: FloatArray  # (3, keys) share of the layer's tokens, two moving means of it
    weight: FloatArray  # (3,) of each reading
    saying: FloatArray  # (keys, experts) what a use says of the layer's next experts
    told: FloatArray  # (5, keys) p before and after sayings, share of last visit, sayings, due
    layer: FloatArray  # (3, layers) tokens so far; of the last decode step; experts of a visit
    top_k: int

    @classmethod
    def create(cls, world: World, *, bypass: bool = True) -> "ExpectedUse":
        """Know nothing; `bypass` is read by the run."""
        keys, experts, layers = world.num_keys, world.num_experts, world.num_layers
        reading, saying = np.full((3, keys), world.top_k / experts), np.zeros((keys, experts))
        told, layer = np.zeros((5, keys)), np.zeros((3, layers))
        return cls(reading, np.full(3, 0.3), saying, told, layer, world.top_k)

    def on_event(self, event: Event) -> None:
        """Learn what p missed, then say when each key of the layer is due next."""
        guess, p, share, said = self.told[0], self.told[1], self.told[2], self.told[3]
        experts, tokens, first = event.num_experts, 0.0, event.layer * event.num_experts
        for i in range(event.start, event.stop):
            tokens += event.tokens[i] / self.top_k
            guess[event.keys[i]] -= 1.0  # what was p is its error now
            p[event.keys[i]] -= 1.0
        if event.phase == DECODE:
            step = SAYING_STEP * min(1.0, self.top_k / max(1.0, self.layer[2, event.layer]))
            for row in range(3):
                slope = 0.0
                for key in range(first, first + experts):
                    slope += guess[key] * self.reading[row, key]
                self.weight[row] -= STEP / experts * slope
            for key in range(first, first + experts):
                for other in range(experts if share[key] > 0.0 else 0):
                    self.saying[key, other] -= step * p[first + other]
            self.layer[1, event.layer] = tokens
        self.layer[0, event.layer] += tokens
        self.layer[2, event.layer] = event.stop - event.start
        seen, batch = self.layer[0, event.layer] + PRIOR, max(1.0, self.layer[1, event.layer])
        self.told[:, first : first + experts] = 0.0
        for i in range(event.start, event.stop):
            share[event.keys[i]] = event.tokens[i] / max(1.0, tokens)
            for other in range(experts):
                said[first + other] += self.saying[event.keys[i], other]
        for row in range(3):
            move = max(1.0 - pow(1.0 - RATES[row], tokens), tokens / seen)
            for key in range(first, first + experts):
                self.reading[row, key] += move * (share[key] - self.reading[row, key])
                guess[key] += self.weight[row] * self.reading[row, key]
        for key in range(first, first + experts):
            guess[key] = min(max(guess[key], LEAST), 1.0 - LEAST)
            guess[key] = 1.0 - pow(1.0 - guess[key], batch) if batch > 1.0 else guess[key]
            more, less = 1.0 + max(said[key], 0.0), 1.0 - min(said[key], 0.0)
            p[key] = guess[key] * more / (guess[key] * more + (1.0 - guess[key]) * less)
            self.told[4, key] = TURN * event.clock + event.num_layers / p[key]

    def rank(self, key: int, event: Event) -> float:
        """Let the latest due leave first."""
        return -self.told[4, key]
