"""Admission policies: against rules written from their sources, their limits, exact counts.

To freeze the counts anew, see `test_frozen_counts.py`.
"""

import json
import os
import re
from collections import Counter
from functools import cache
from math import inf
from pathlib import Path

import numpy as np
import pytest
from reference import BYPASS, FETCH, Reference, core_log, random_steps

from specmd.conformance.suite import SLOW_LINK
from specmd.core import state as residency
from specmd.core.binding import bind_gate
from specmd.core.event import World, event_at
from specmd.core.hooks import admits, admits_ahead, observe, outweighs
from specmd.core.interpreted import as_lists
from specmd.core.specialise import specialise
from specmd.policy.registry import choose, entries
from specmd.runs.options import RunConfig
from specmd.simulation.events import EventStream
from specmd.simulation.replay import replay
from specmd.trace import build_trace, load, slice_steps, synthetic

HERE = Path(__file__).parent
FROZEN = HERE / "frozen_admission.json"
GATES = [e.name for e in entries("admission") if choose("admission", e.name).entry.compiled]


class Open:
    """Lets everything in: what a rule below does not say."""

    def observe(self, now):
        pass

    def admits(self, key, room, now):
        return True

    def ahead(self, key, room, now):
        return True

    def outweighs(self, key, leaving, now):
        return True


class PromptNever(Open):
    def admits(self, key, room, now):
        return now.phase == 1

    ahead = admits


class PromptFree(Open):
    def admits(self, key, room, now):
        return now.phase == 1 or room

    ahead = admits


class PromptApart(PromptFree):
    def __init__(self):
        self.prompts = set()  # keys that a prefill was the last to ask for

    def ask(self, key, now):
        (self.prompts.add if now.phase == 0 else self.prompts.discard)(key)

    def admits(self, key, room, now):
        self.ask(key, now)
        return True

    def ahead(self, key, room, now):
        self.ask(key, now)
        return now.phase == 1 or room

    def outweighs(self, key, leaving, now):
        return now.phase == 1 or leaving in self.prompts


class SecondMiss(Open):
    def __init__(self, within):
        self.within, self.missed = within, {}

    def admits(self, key, room, now):
        before, self.missed[key] = self.missed.get(key, -inf), now.step
        return now.step - before <= self.within


class TinyLFU(Open):
    def __init__(self, window):
        self.window, self.counts, self.size = window, Counter(), 0

    def observe(self, now):
        self.counts.update(now.tokens.keys())
        self.size += len(now.tokens)
        if self.size >= self.window:
            self.counts = Counter({key: count // 2 for key, count in self.counts.items()})
            self.size //= 2

    def outweighs(self, key, leaving, now):
        return self.counts[key] > self.counts[leaving]


class Hysteresis(Open):
    def __init__(self, factor, fade, dwell):
        self.factor, self.fade, self.dwell = factor, fade, dwell
        self.used, self.came = {}, {}

    def heat(self, key, now):
        return sum(self.fade ** (now.step - step) for step in self.used.get(key, ()))

    def observe(self, now):
        for key in now.tokens:
            self.used.setdefault(key, []).append(now.step)

    def admits(self, key, room, now):
        self.came[key] = now.step
        return True

    def outweighs(self, key, leaving, now):
        dwelt = now.step - self.came.get(leaving, 0) >= self.dwell
        return dwelt and self.heat(key, now) > self.factor * self.heat(leaving, now) + 1e-9


class InsertCap(Open):
    def __init__(self, most):
        self.most, self.asked = most, Counter()

    def admits(self, key, room, now):
        self.asked[now.step] += 1
        return self.asked[now.step] <= self.most


RULES = {
    "prompt_never": lambda slots: PromptNever(),
    "prompt_free": lambda slots: PromptFree(),
    "prompt_apart": lambda slots: PromptApart(),
    "second_miss:within=2": lambda slots: SecondMiss(2),
    "tinylfu:sample=2": lambda slots: TinyLFU(2 * slots),
    "hysteresis:fade=0.5,factor=1.25": lambda slots: Hysteresis(1.25, 0.5, 0),
    "hysteresis:dwell=3,fade=0.5": lambda slots: Hysteresis(1.3, 0.5, 3),
    "insert_cap:most=2": lambda slots: InsertCap(2),
    "coin:chance=1": lambda slots: Open(),
}


class Gated(Reference):
    """The contract with an admission policy."""

    def __init__(self, *told, gate, phases, **more):
        super().__init__(*told, **more)
        self.gate, self.phases = gate, phases

    def serve(self, now):
        now.phase = self.phases[now.step]
        self.gate.observe(now)
        super().serve(now)

    def has_room(self, pool):
        return len(self.residents(pool)) < self.capacity[pool]

    def fetch(self, key, now):
        pool = key // self.per_pool
        self.log.append((FETCH, key))
        self.ever.add(key)
        room = self.has_room(pool)
        may = self.gate.admits(key, room, now)
        leaving = None
        if may and not room:
            able = [k for k in self.residents(pool) if k not in now.tokens]
            leaving = self.rules[pool].victim(able, key, now)
            may = leaving is None or self.gate.outweighs(key, leaving, now)
        if not may:
            self.count["bypassed"] += 1
            self.log.append((BYPASS, key))
            return
        if leaving is not None:
            self.leave(leaving, now)
        elif not room:
            self.slotless.add(key)
        self.enter(key, now, False)

    def prefetch(self, key, due, now, under_way):
        pool = key // self.per_pool
        asked = key not in self.resident and key not in now.tokens
        slots = [k for k in self.residents(pool) if k not in self.slotless]
        if asked and not self.gate.ahead(key, len(slots) < self.capacity[pool], now):
            self.count["dropped"] += 1
            return
        super().prefetch(key, due, now, under_way)


def random_phases(seed):
    """A random trace whose first steps, and some later ones, are prefills."""
    trace, steps = random_steps(seed, prefetches=seed % 2 == 1)
    rng = np.random.default_rng(seed)
    phases = np.where(rng.random(trace.num_steps) < 0.3, 0, 1)
    phases[0] = 0
    header = trace.header
    told = build_trace(
        trace.expert_ids,
        num_experts=header.num_experts,
        step=trace.step,
        phase=phases[np.asarray(trace.step)],
        request=np.cumsum(np.append(0, np.diff(phases) < 0))[np.asarray(trace.step)],
    )
    return told, steps, phases.tolist()


@pytest.mark.parametrize("evict", ["lru", "lfu", "fifo"])
@pytest.mark.parametrize("name", RULES)
def test_the_core_decides_as_the_rule_says(name, evict):
    refused = 0
    for seed in range(12):
        trace, steps, phases = random_phases(seed)
        rng = np.random.default_rng(seed + 5)
        layers, experts = trace.header.num_layers, trace.header.num_experts
        pools = layers if seed % 3 == 2 else 1
        slots = rng.integers(1, layers * experts // pools + 1, pools)
        reference = Gated(
            steps,
            layers,
            experts,
            pools,
            slots.tolist(),
            evict,
            guard=seed % 4 == 3,
            popularity=np.zeros(layers * experts),
            gate=RULES[name](int(np.minimum(slots, layers * experts // pools).sum())),
            phases=phases,
        )
        expected, counts = reference.run()
        found, total, _ = core_log(
            trace,
            steps,
            evict,
            slots,
            admission=residency.GATED,
            guard=seed % 4 == 3,
            gate=choose("admission", name),
        )
        assert found == expected, f"{name} seed {seed} slots {slots}"
        assert total == counts, f"{name} seed {seed} slots {slots}"
        refused += counts["bypassed"]
    assert (refused > 0) == (name != "coin:chance=1")


def test_every_rule_has_its_reference():
    assert {name.partition(":")[0] for name in RULES} == set(GATES)
    assert {entry.name for entry in entries("admission")} == {*GATES, "forced", "bypass"}


def made(seed=3, **more):
    sizes = {"num_layers": 4, "num_experts": 8, "top_k": 2, "num_requests": 4, "batch": 2}
    lengths = {"prompt_length": 6, "decode_length": 20, "expert_bytes": 1 << 20}
    return synthetic(**sizes, **lengths, seed=seed, **more)


def decided(trace, admission, *, slots=12, evict="lru", costs=None, **more):
    config = RunConfig(
        evict=evict, capacity=str(slots), capacity_slots=slots, admission=admission, **more
    )
    outcome = replay(trace, config, costs=costs, interpreted=True)
    return outcome.decision_digest, outcome.counters.tolist()


@pytest.mark.parametrize("evict", ["lru", "lfu", "arc"])
@pytest.mark.parametrize(
    "name", ["second_miss:within=0", "insert_cap:most=100000", "coin:chance=1"]
)
def test_what_refuses_nothing_is_forced(name, evict):
    for seed in range(3):
        for more in ({}, {"prefetch": "prev_token"}, {"scope": "layer", "reset": "request"}):
            forced, ours = (
                decided(made(seed), each, evict=evict, **more) for each in ("forced", name)
            )
            assert ours == forced, f"seed {seed} {more}"


@pytest.mark.parametrize("name", ["prompt_never", "prompt_free", "prompt_apart"])
def test_without_prompts_they_are_forced(name):
    trace = made()
    decode = slice_steps(trace, *_decodes(trace))
    assert decided(decode, name) == decided(decode, "forced")


def _decodes(trace):
    """The longest run of decode steps."""
    phases = np.asarray(trace.phase)[np.asarray(trace.step_starts[:-1])]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], phases, [0]])))
    first, last = max(edges.reshape(-1, 2).tolist(), key=lambda edge: edge[1] - edge[0])
    assert last - first > 10
    return first, last


def test_a_prompt_that_never_admits_leaves_the_cache_alone():
    trace = made()
    for phase, counts in enumerate(np.array(decided(trace, "prompt_never")[1])):
        total = counts.sum(axis=0)
        misses = total[[residency.COMPULSORY_MISSES, residency.COLLISION_MISSES]].sum()
        misses += total[residency.CAPACITY_MISSES]
        assert total[residency.BYPASSED] == (misses if phase == 0 else 0)
        assert (total[residency.EVICTIONS] > 0) == (phase == 1)


def test_nothing_leaves_for_a_free_slot_only_or_before_it_dwelt():
    trace = made()
    free = np.array(decided(trace, "prompt_free")[1])
    assert free[0, :, residency.EVICTIONS].sum() == 0 < free[0, :, residency.BYPASSED].sum()
    dwelt = np.array(decided(trace, "hysteresis:dwell=100000")[1])
    assert dwelt[..., residency.EVICTIONS].sum() == 0 < dwelt[..., residency.BYPASSED].sum()
    nobody = np.array(decided(trace, "coin:chance=0")[1])
    assert nobody[..., residency.REUSE_HITS].sum() == 0


@pytest.mark.parametrize("name", GATES)
def test_an_infinitely_fast_link_decides_like_no_link(name):
    trace = made()
    fast = SLOW_LINK._replace(latency_s=0, bytes_per_s=1e30)
    for more in ({}, {"prefetch": "prev_token", "schedule": "guard"}, {"slots": 3}):
        assert decided(trace, name, **more) == decided(trace, name, costs=fast, **more), more
        decided(trace, name, costs=SLOW_LINK, **more)


def ask(core, chunk, answers):
    """Ask a gate all there is to ask, of every key of every event."""
    keys = len(core.pool)
    for i in range(len(chunk.layer)):
        event = event_at(chunk, i, chunk.next_use)
        core.num_free[0] = i % 3
        observe(core.gate, event)
        for j in range(event.start, event.stop):
            key = event.keys[j]
            answers[3 * j] = admits(core.gate, key, 0, core, event)
            answers[3 * j + 1] = admits_ahead(core.gate, (key + 1) % keys, 0, core, event)
            answers[3 * j + 2] = outweighs(core.gate, key, (key + 2) % keys, core, event)


@pytest.mark.parametrize("name", RULES)
def test_compiled_a_gate_answers_as_interpreted(name):
    # Compiled alone, it takes a tenth of the time of a kernel.
    trace, gate = made(), choose("admission", name)
    world, stream = World.of(trace.header, [12], seed=3), EventStream(trace)
    chunk = stream.chunk(0, stream.num_steps)
    found = []
    for compiled in (True, False):
        core = residency.create_core(world)._replace(gate=gate.create(world))
        asked = core, chunk, np.zeros(3 * int(chunk.start[-1]), np.int64)
        asked = asked if compiled else as_lists(asked)
        specialise(ask, bind_gate(gate), compiled)(*asked)
        found.append(list(map(int, asked[-1])))
    assert found[0] == found[1]
    assert (0 in found[0]) == (name != "coin:chance=1")


def test_interpreted_is_compiled():
    for more in ({}, {"prefetch": "prev_token", "schedule": "guard"}):
        config = RunConfig(
            evict="lfu", capacity="12", capacity_slots=12, admission="tinylfu", **more
        )
        ours, theirs = (
            replay(made(), config, interpreted=not each, compiled=each) for each in (True, False)
        )
        assert ours.decision_digest == theirs.decision_digest
        assert (ours.counters == theirs.counters).all()


@cache
def shipped(name, steps):
    return slice_steps(load(HERE.parents[1] / "traces" / f"{name}.npz"), *steps)


RUNS = [
    (entry, evict, trace)
    for entry in [*(e.name for e in entries("admission")), *RULES]
    for evict in ("lru", "lfu")
    for trace in (("tiny-prose-b1", (0, 100), 51), ("tiny-mixed-b8", (0, 24), 64))
]


def count(entry, evict, trace):
    name, steps, slots = trace
    digest, counters = decided(shipped(name, steps), entry, slots=slots, evict=evict)
    return [digest, *np.array(counters).sum(axis=(0, 1))[:17].tolist()]


@pytest.fixture(scope="module")
def frozen():
    if os.environ.get("SPECMD_FREEZE"):
        found = {f"{run[0]} {run[1]} {run[2][0]}": count(*run) for run in RUNS}
        text = json.dumps(found, indent=1)
        FROZEN.write_text(re.sub(r"\[[^]]*\]", lambda m: " ".join(m[0].split()), text) + "\n")
    return json.loads(FROZEN.read_text())


@pytest.mark.parametrize("run", RUNS, ids=lambda run: f"{run[0]} {run[1]} {run[2][0]}")
def test_counts_are_what_they_were(frozen, run):
    assert count(*run) == frozen[f"{run[0]} {run[1]} {run[2][0]}"]
