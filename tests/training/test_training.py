"""Weights are the same bytes for the same trace and seed, and a run is known by what they say."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_files import TENSORS, drawn, write_weights

from specmd import simulate
from specmd.core.event import World
from specmd.errors import SpecmdError
from specmd.policy.registry import entries
from specmd.policy.weights import load_model, load_weights
from specmd.runs.identity import run_id
from specmd.runs.resolve import grid
from specmd.trace import TraceHeader, build_trace, select_requests, synthetic
from specmd.training.training import KINDS, train

SIZES = {"num_layers": 3, "num_experts": 8, "top_k": 2}


def recorded(seed=0, **more):
    return synthetic(**(SIZES | {"num_requests": 6, "decode_length": 40} | more), seed=seed)


def world(**more):
    return World.of(TraceHeader(**(SIZES | more)), [4])


def test_what_can_be_learned_is_what_policies_need():
    assert set(KINDS) == {entry.name for entry in entries() if "model" in entry.needs}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_arguments_give_equal_bytes(kind, tmp_path):
    trace = recorded()
    files = {}
    for name, more in {
        "one": {}, "same": {}, "seed": {"seed": 1}, "control": {"shuffled": True},
        "all": {"hold_out": 0},
    }.items():  # fmt: skip
        train(kind, trace, tmp_path / name, epochs=2, **more)
        files[name] = (tmp_path / name).read_bytes()
    assert files["one"] == files["same"]
    assert len(set(files.values())) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_says_what_it_is(kind, tmp_path):
    trace = recorded()
    said = train(kind, trace, tmp_path / "w", epochs=2, seed=3, hold_out=0.34)
    header, tensors = load_model(tmp_path / "w")
    assert header == said
    assert (header.kind, header.labels, header.seed) == (kind, "true", 3)
    assert (header.num_layers, header.num_experts, header.top_k) == (3, 8, 2)
    assert header.training == trace.digest
    assert header.training_tokens == 160
    assert header.held_out_loss > 0
    assert all(np.isfinite(each).all() for each in tensors.values())
    assert str(tmp_path) not in (tmp_path / "w").read_bytes().decode("latin1")
    assert load_weights(str(tmp_path / "w"), kind, world()).keys() == {
        name for name in tensors if not name.startswith("seen.")
    }


@pytest.mark.parametrize("kind", ["learned_linear", "learned_mlp"])
def test_true_labels_say_more_of_requests_held_out_than_shuffled_ones(kind, tmp_path):
    trace = recorded(num_requests=12, decode_length=120, reuse=0.8, zipf=1.2)
    loss = {
        shuffled: train(kind, trace, tmp_path / "w", hold_out=0.3, shuffled=shuffled).held_out_loss
        for shuffled in (False, True)
    }
    assert loss[False] < 0.95 * loss[True]


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    out = tmp_path / "w"
    with pytest.raises(SpecmdError, match="too few to learn from"):
        train("learned_linear", synthetic(**SIZES, num_requests=1, decode_length=9), out)
    with pytest.raises(SpecmdError, match="did you mean learned_linear"):
        train("learned_liner", recorded(), out)
    bare = build_trace(recorded().expert_ids, num_experts=8, request=recorded().request)
    with pytest.raises(SpecmdError, match="no router weights"):
        train("learned_mlp", bare, out)
    assert not out.exists()


def test_weights_of_something_else_are_refused(tmp_path):
    file = drawn("learned_linear", 3, 8, 2)
    with pytest.raises(SpecmdError, match="holds learned_linear weights, not learned_mlp"):
        load_weights(file, "learned_mlp", world())
    with pytest.raises(SpecmdError, match="a model of 3 layers of 8 experts, not 4 of 8"):
        load_weights(file, "learned_linear", world(num_layers=4))
    nan = {"weight": np.full(8, np.nan)}
    spoilt = write_weights(tmp_path / "nan", "learned_linear", (3, 8, 2), nan)
    with pytest.raises(SpecmdError, match="no numbers"):
        load_weights(spoilt, "learned_linear", world())
    with pytest.raises(SpecmdError, match="cannot be read"):
        load_model(tmp_path / "nothing")
    with pytest.raises(SpecmdError, match="cannot be read"):
        load_model(tmp_path)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_damage_is_noticed(data):
    kind = data.draw(st.sampled_from(sorted(TENSORS)))
    file = drawn(kind, 3, 8, 2)
    whole = Path(file).read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    how = data.draw(st.sampled_from(("flip", "cut", "add")))
    spoilt = {
        "flip": whole[:at]
        + bytes([whole[at] ^ (1 << data.draw(st.integers(0, 7)))])
        + whole[at + 1 :],
        "cut": whole[:at],
        "add": whole + b"x",
    }[how]
    other = file + ".spoilt"
    Path(other).write_bytes(spoilt)
    try:
        _, tensors = load_model(other)
    except SpecmdError:
        return
    # What is said of the making may be another word; what decides is as it was.
    for name, array in load_model(file)[1].items():
        np.testing.assert_array_equal(tensors[name], array)


def test_a_run_is_known_by_what_its_weights_say_and_not_by_where_they_lie(tmp_path):
    trace, judged = recorded(1), recorded(2)
    files = [tmp_path / name for name in ("one", "copy", "other")]
    train("learned_linear", trace, files[0])
    shutil.copy(files[0], files[1])
    train("learned_linear", trace, files[2], seed=1)

    def known(file):
        (config,) = grid(judged, evict=f"learned_linear:model={file}", capacity=6)
        return run_id(judged, config, bounds=False)

    ids = [known(file) for file in files]
    assert ids[0] == ids[1] != ids[2]
    shutil.copy(files[2], files[0])
    assert known(files[0]) == ids[2]


@pytest.mark.parametrize("axis", ["evict", "prefetch"])
def test_a_file_that_changed_decides_anew_in_the_same_process(axis, tmp_path):
    judged, file = recorded(2), tmp_path / "w"
    kind = {"evict": "learned_linear", "prefetch": "learned_mlp"}[axis]
    digests = []
    for seed in (0, 1):
        tensors = TENSORS[kind](np.random.default_rng(seed), 3, 8)
        if axis == "evict":
            tensors = {"weight": tensors["weight"] * (1 - 2 * seed)}
        write_weights(file, kind, (3, 8, 2), tensors)
        policies = {axis: f"{kind}:model={file}"}
        run = simulate(judged, capacity=6, bounds=False, interpreted=True, **policies)
        digests.append(run.decision_digest)
    assert digests[0] != digests[1]


def test_nothing_is_judged_on_what_it_was_trained_on(tmp_path):
    trace, file = recorded(), tmp_path / "w"
    train("learned_linear", trace, file)
    evict = f"learned_linear:model={file}"
    for judged in (trace, select_requests(trace, [2, 3])):
        with pytest.raises(SpecmdError, match="what it was trained on"):
            simulate(judged, evict, 6, bounds=False)
        with pytest.raises(SpecmdError, match="the training trace"):
            simulate(judged, "static", 6, training=trace, bounds=False)
    for options in ({"batch": 2}, {"tokens": 100}):
        with pytest.raises(SpecmdError, match="what it was trained on"):
            simulate(trace, evict, 6, bounds=False, **options)
    assert simulate(recorded(1), evict, 6, bounds=False).metrics["hits"] > 0
    assert simulate(trace, "lru", 6, training=trace, bounds=False).metrics["hits"] > 0
