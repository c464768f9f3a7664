"""From options to a run: exact counts, canonical configurations, needs, and errors that help."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import specmd
from specmd.errors import SpecmdError
from specmd.policy import registry
from specmd.runs.identity import run_id
from specmd.runs.metrics import PARTS
from specmd.runs.resolve import grid
from specmd.simulation.simulate import run_config, try_config
from specmd.trace import build_trace, save, synthetic

simulate = partial(specmd.simulate, bounds=False, interpreted=True)

COUNTS = (
    "accesses", "hits", "reuse_hits", "prefetch_hits", "late_hits", "misses", "compulsory_misses",
    "collision_misses", "capacity_misses", "evictions", "unused_evictions", "prefetch_issued",
    "prefetch_wasted", "prefetch_cancelled", "prefetch_redundant", "prefetch_dropped",
)  # fmt: skip


def hand_checkable():
    """arXiv:2608.07911: three layers of four experts, five steps, the same sets in every layer."""
    steps = [[0, 1], [0, 2], [0, 1], [0, 3], [0, 1]]
    return build_trace(np.array([[row] * 3 for row in steps]), num_experts=4)


@pytest.fixture
def own_registry(monkeypatch):
    """A registry of this test's own: what is added is gone afterwards."""
    found = dict(registry._registry())
    monkeypatch.setattr(registry, "_registry", lambda: found)


def small(**more):
    sizes = {"num_layers": 3, "num_experts": 6, "top_k": 2, "num_requests": 3, "decode_length": 8}
    return synthetic(**(sizes | more))


@pytest.mark.parametrize("interpreted", [True, False])
def test_the_hand_checkable_trace(interpreted):
    run = specmd.simulate(
        hand_checkable(),
        "lru",
        "2/layer",
        scope="layer",
        interpreted=interpreted,
        bounds=not interpreted,
    )
    expected = {
        "accesses": 30,
        "hits": 12,
        "misses": 18,
        "compulsory_misses": 12,
        "capacity_misses": 6,
        "collision_misses": 0,
        "evictions": 12,
        "hit_rate": 0.4,
    }
    assert {name: run.metrics[name] for name in expected} == expected
    assert run.config.capacity_slots == 6
    assert run.per_layer["hits"] == [4, 4, 4]
    assert run.per_phase["decode"]["misses"] == 18
    assert "prefill" not in run.per_phase


def test_compiled_and_interpreted_runs_are_the_same_run():
    trace = small(prompt_length=4)
    one, other = (
        specmd.simulate(trace, capacity=5, bounds=False, interpreted=interpreted)
        for interpreted in (True, False)
    )
    assert one.model_dump(exclude={"provenance"}) == other.model_dump(exclude={"provenance"})


@given(
    st.integers(0, 9),
    st.sampled_from(["lru", "least_stale", "random", "lfu"]),
    st.sampled_from(["none", "prev_token", "oracle", "next_gate"]),
    st.sampled_from(["global", "layer"]),
    st.sampled_from(["none", "request"]),
    st.integers(0, 6),
    st.sampled_from([None, "rtx4090"]),
)
@settings(max_examples=40, deadline=None)
def test_identities_hold_whatever_is_run(seed, evict, prefetch, scope, reset, warmup, profile):
    trace = small(seed=seed, prompt_length=3, lookahead_depth=1, expert_bytes=10**6)
    run = simulate(
        trace, evict, 9, scope=scope, prefetch=prefetch, reset=reset, warmup=warmup, profile=profile
    )
    found = run.metrics
    assert found["accesses"] == found["hits"] + found["late_hits"] + found["misses"]
    assert found["hits"] == found["reuse_hits"] + found["prefetch_hits"]
    ended = ("prefetch_useful", "prefetch_late", "prefetch_wasted", "prefetch_cancelled")
    assert found["prefetch_issued"] == sum(found[name] for name in ended)
    for name in ("accesses", "hits", "misses", "evictions"):
        assert found[name] == sum(run.per_layer[name])
        assert found[name] == sum(phase[name] for phase in run.per_phase.values())
    assert run.trace.counted_steps == trace.num_steps - warmup
    for short in ("ttft", "tpot", "total"):
        if found[f"{short}_s"] is not None:
            parts = PARTS
            total = sum(found[f"{short}_{part}_s"] for part in parts)
            assert total == pytest.approx(found[f"{short}_s"])


def test_bytes_per_token_beside_no_cache():
    trace = replace(hand_checkable())
    header = trace.header.model_copy(update={"expert_bytes": 100})
    found = simulate(replace(trace, header=header), "lru", "2/layer", scope="layer").metrics
    assert found["bytes_demand"] == 1800
    assert found["bytes_per_token"] == 360
    assert found["no_cache_bytes_per_token"] == 600


def test_a_path_names_the_trace(tmp_path):
    path = save(hand_checkable(), tmp_path / "case.npz")
    run = simulate(path, capacity=6)
    assert run.trace.name == "case"
    assert run.id == simulate(str(path), capacity=6).id
    assert str(tmp_path) not in run.to_json()


def test_tokens_cut_the_trace_but_not_its_identity():
    trace = small()
    run = simulate(trace, capacity=5, tokens=10)
    assert (run.trace.tokens, run.trace.digest) == (10, trace.digest)
    assert run.metrics["accesses"] == 10 * 3 * 2
    assert simulate(trace, capacity=5, tokens=10_000).trace.tokens == trace.num_tokens


def test_the_model_name_brings_shape_and_expert_bytes():
    trace = synthetic(
        num_layers=16, num_experts=64, top_k=8, num_requests=1, decode_length=2,
        model="OLMoE-1B-7B-0924",
    )  # fmt: skip
    run = simulate(trace, capacity="0.6GB", profile="rtx4090")
    assert run.config.shape == "olmoe-1b-7b"
    assert run.config.capacity_slots == 47
    assert run.trace.expert_bytes == 12_582_912
    assert run.metrics["tpot_s"] > 0


def test_unknown_prefill_is_null_and_a_known_prompt_length_gives_a_labelled_estimate():
    trace = replace(small(expert_bytes=1000), prompt_lengths=np.array([5, 9, -1], np.int32))
    run = simulate(trace, capacity=5, profile="h200")
    assert run.metrics["ttft_s"] is None
    assert run.ttft_estimate_s > 0
    assert any("TTFT is null" in text for text in run.warnings)
    assert "ttft_estimate_s" not in run.metrics


def test_simulate_takes_one_value_of_each():
    with pytest.raises(SpecmdError, match="evict: give one value"):
        simulate(small(), ["lru", "fifo"], 6)


# Needs.


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prefetch": "next_gate"}, "lookahead scores"),
        ({"evict": "static"}, "training trace"),
    ],
)
def test_an_unmet_need_is_an_error_alone_and_a_skipped_row_in_a_grid(options, words):
    trace = small()
    with pytest.raises(SpecmdError, match=words):
        simulate(trace, capacity=6, **options)
    (config,) = grid(trace, capacity=6, **options)
    run = try_config(trace, config, name="x")
    assert run.status == "skipped"
    assert words in run.reason
    assert run.metrics == {}
    assert run.id == run_id(trace, config, bounds=True)


def test_needs_that_are_met_are_no_obstacle():
    trace = small(lookahead_depth=1)
    assert simulate(trace, capacity=6, prefetch="next_gate").metrics["prefetch_issued"] > 0
    assert simulate(trace, "static", 6, training=small(seed=1)).metrics["hits"] > 0


def test_a_warm_up_that_leaves_nothing_is_an_error_and_a_failed_row():
    trace = small()
    with pytest.raises(SpecmdError, match="warm-up"):
        simulate(trace, capacity=6, warmup=trace.num_steps)
    (config,) = grid(trace, capacity=6, warmup=trace.num_steps)
    run = try_config(trace, config)
    assert (run.status, "warm-up" in run.reason) == ("failed", True)


def test_a_clock_needs_the_size_of_an_expert():
    with pytest.raises(SpecmdError, match="how large an expert is"):
        simulate(small(), capacity=6, profile="h200")


def python_policy(name, body="return min(candidates(core, pool))"):
    """A policy file of ordinary Python objects."""
    return textwrap.dedent(
        f'''
        """{name}: made up for a test."""
        import os
        from pathlib import Path
        from specmd.policy import candidates, policy

        @policy("{name}", source="a test")
        class Mine:
            @classmethod
            def create(cls, world):
                return cls()

            def victim(self, incoming, pool, core, event):
                {body}
        '''
    )


def test_an_exception_in_a_plugin_is_a_failed_row(tmp_path, own_registry):
    (tmp_path / "broken.py").write_text(python_policy("broken", "raise KeyError('oops')"))
    registry.add_plugin(tmp_path / "broken.py")
    (config,) = grid(small(), evict="broken", capacity=4)
    run = try_config(small(), config, bounds=False)
    assert (run.status, run.reason) == ("failed", "KeyError: 'oops' (broken.py:14, in victim)")


def test_a_bug_of_ours_is_not_hidden_behind_a_run(monkeypatch):
    from specmd.simulation import simulate as simulation

    def wrong(counters):
        raise simulation.AccountingError("books do not balance")

    monkeypatch.setattr(simulation, "check", wrong)
    (config,) = grid(small(), capacity=4)
    with pytest.raises(simulation.AccountingError):
        run_config(small(), config, interpreted=True)


# The package.


def test_importing_specmd_imports_nothing_heavy():
    code = (
        "import sys, specmd; "
        "print([m for m in ('numpy', 'torch', 'pandas', 'numba', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_simulating_imports_neither_torch_nor_pandas():
    code = (
        "import sys, specmd; specmd.simulate, specmd.frame, specmd.load, specmd.Trace; "
        "print([m for m in ('torch', 'pandas', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there():
    assert all(hasattr(specmd, name) for name in specmd.__all__)
    assert {"record", "offload"} <= set(dir(specmd))
    assert not hasattr(specmd, "no_such_name")
