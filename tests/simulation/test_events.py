"""Events built from traces: what is demanded, when, and when again."""

import numpy as np
import pytest
from reference import Knowledge, random_steps

from specmd.core.event import NEVER
from specmd.simulation.events import EventStream
from specmd.trace import synthetic


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("size", [1, 40, 1 << 17])
def test_events_are_the_steps_layers_and_uses_of_the_trace(seed, size, monkeypatch):
    monkeypatch.setattr("specmd.simulation.events.CHUNK_ACCESSES", size)
    trace, steps = random_steps(seed)
    know = Knowledge(steps, trace.header.num_layers, trace.header.num_experts)
    stream = EventStream(trace, future=True)
    number = 0
    for first, last in stream.stretches(0, stream.num_steps):
        chunk = stream.chunk(first, last)
        for index in range(len(chunk.layer)):
            now = steps[number]
            inside = slice(int(chunk.start[index]), int(chunk.start[index + 1]))
            assert chunk.clock[0] + index == now.clock
            assert (chunk.step[index], chunk.layer[index]) == (now.step, now.layer)
            keys = chunk.keys[inside].tolist()
            assert keys == sorted(now.tokens)
            assert chunk.tokens[inside].tolist() == [now.tokens[key] for key in keys]
            upcoming = [know.next_use(key, now) for key in keys]
            assert chunk.next_use[inside].tolist() == [min(clock, NEVER) for clock in upcoming]
            number += 1
    assert number == len(steps)
    first_uses = [
        next((now.clock for now in steps if key in now.tokens), NEVER)
        for key in range(trace.header.num_layers * trace.header.num_experts)
    ]
    assert stream.first_use.tolist() == first_uses


def test_weights_are_summed_over_the_tokens_of_the_step():
    trace = synthetic(num_layers=2, num_experts=4, top_k=2, num_requests=3, batch=3)
    stream = EventStream(trace, weights=True)
    chunk = stream.chunk(0, stream.num_steps)
    for index in range(len(chunk.layer)):
        rows = np.asarray(trace.step) == chunk.step[index]
        ids, weights = (a[rows][:, chunk.layer[index]] for a in (trace.expert_ids, trace.weights))
        for i in range(int(chunk.start[index]), int(chunk.start[index + 1])):
            expert = int(chunk.keys[i]) - int(chunk.layer[index]) * 4
            assert chunk.gates[i] == pytest.approx(weights[ids == expert].astype(float).sum())


def test_prefill_steps_are_prefill_events():
    trace = synthetic(num_layers=2, num_experts=4, num_requests=3, prompt_length=5, batch=1)
    stream = EventStream(trace)
    chunk = stream.chunk(0, stream.num_steps)
    for step, phase in zip(chunk.step, chunk.phase, strict=True):
        assert {int(phase)} == set(trace.phase[np.asarray(trace.step) == step].tolist())


def test_sequential_events_list_every_access_with_its_next():
    trace = synthetic(num_layers=2, num_experts=4, top_k=2, num_requests=2, decode_length=6)
    stream = EventStream(trace, sequential=True, future=True)
    chunk = stream.chunk(0, stream.num_steps)
    accesses = chunk.keys[: chunk.start[-1]].tolist()
    expected = (trace.expert_ids + np.arange(2)[None, :, None] * 4).reshape(-1).tolist()
    assert accesses == expected
    for i, key in enumerate(accesses):
        later = [j for j in range(i + 1, len(accesses)) if accesses[j] == key]
        assert chunk.next_use[i] == (later[0] + 1 if later else NEVER)
    assert stream.first_use.tolist() == [
        accesses.index(key) + 1 if key in accesses else NEVER for key in range(8)
    ]
