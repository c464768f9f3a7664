"""Anchors: two times give back the costs that made them, and what contradicts itself is refused."""

import numpy as np
import pytest

from specmd.calibration.anchors import Anchor, fit, parse_anchor
from specmd.errors import SpecmdError
from specmd.hardware.engines import load_engine
from specmd.hardware.profile import Attainable, Figure, Stack, load_profile, read_profile
from specmd.hardware.shape import load_shape
from specmd.hardware.toml import profile_text
from specmd.runs.latency import latency
from specmd.runs.options import RunConfig
from specmd.simulation.costs import coefficients
from specmd.simulation.replay import replay
from specmd.trace import synthetic

DEVICE, SHAPE, ENGINE = load_profile("rtx3090"), load_shape("olmoe-1b-7b"), load_engine("grouped")


@pytest.fixture(scope="module")
def trace():
    return synthetic(
        num_layers=16, num_experts=64, top_k=8, prompt_length=9, decode_length=20, num_requests=2,
        expert_bytes=SHAPE.expert_bytes, model="olmoe-1b-7b", seed=5,
    )  # fmt: skip


def machine(layer_s, fetch_s, **changed):
    """A device whose software is known: what an engine on it would be measured to take."""

    def seconds(value):
        return Figure(value=value, unit="s", kind="design", source="made up for a test")

    costs = coefficients(DEVICE, SHAPE, SHAPE.expert_bytes, ENGINE)
    stack = Stack(
        expert_s=seconds(costs.launch_s),
        layer_s=seconds(layer_s),
        step_s=seconds(costs.step_launch_s),
        fetch_s=seconds(fetch_s),
    )
    shares = {name: getattr(ENGINE, name) for name in Attainable.model_fields}
    return DEVICE.model_copy(update={"stack": stack, "attainable": Attainable(**shares), **changed})


def measured(profile, trace, what, metric="tpot_s"):
    capacity = {"resident": 1024, "no_cache": 1, "ttft": 1024}.get(what, what)
    residency = {"resident": "all", "no_cache": "none"}.get(what, "cache")
    costs = coefficients(profile, SHAPE, SHAPE.expert_bytes)
    config = RunConfig(capacity=str(capacity), capacity_slots=capacity)
    outcome = replay(trace, config, costs=costs, residency=residency)
    return latency(trace, outcome.step_seconds, 0, None).metrics[metric]


@pytest.mark.parametrize("pair", [("resident", "no_cache"), (512, 128), ("no_cache", 256)])
def test_two_anchors_give_back_layer_and_copy(trace, pair):
    true = machine(3e-4, 7e-5)
    anchors = [Anchor(str(what), measured(true, trace, what)) for what in pair]
    found = fit(DEVICE, SHAPE, trace, ENGINE, anchors)
    assert found.profile.stack.layer_s.value == pytest.approx(3e-4, rel=1e-6)
    assert found.profile.stack.fetch_s.value == pytest.approx(7e-5, rel=1e-6)
    assert found.assumed == []
    # What was no anchor is predicted.
    for what in ("resident", "no_cache", 64, 300):
        assert measured(found.profile, trace, what) == pytest.approx(measured(true, trace, what))


def test_one_anchor_leaves_the_other_cost_to_the_kind_and_says_so(trace):
    true = machine(3e-4, ENGINE.fetch_s.value)
    found = fit(
        DEVICE, SHAPE, trace, ENGINE, [Anchor("resident", measured(true, trace, "resident"))]
    )
    assert found.profile.stack.layer_s.value == pytest.approx(3e-4)
    assert found.assumed == ["A demanded copy costs 18 us, as of its kind."]
    # Without a resident anchor too: copies of an engine differ less than its layers do.
    slow = Anchor("no_cache", measured(machine(4e-4, ENGINE.fetch_s.value), trace, "no_cache"))
    found = fit(DEVICE, SHAPE, trace, ENGINE, [slow])
    assert found.profile.stack.layer_s.value == pytest.approx(4e-4)
    assert found.assumed == ["A demanded copy costs 18 us, as of its kind."]
    # Less than the kind's copies cost: no layer costs less than nothing.
    quick = Anchor("no_cache", measured(machine(0.0, 2e-6), trace, "no_cache"))
    found = fit(DEVICE, SHAPE, trace, ENGINE, [quick])
    assert found.profile.stack.layer_s.value == 0.0
    assert found.profile.stack.fetch_s.value == pytest.approx(2e-6)
    assert found.assumed == ["A layer costs nothing beside its kernels."]


def test_faster_than_the_attained_bandwidth_raises_it_up_to_the_peak(trace):
    true = machine(0.0, 5e-5)
    share = true.attainable.memory_share.model_copy(update={"value": 0.9})
    true = true.model_copy(
        update={"attainable": true.attainable.model_copy(update={"memory_share": share})}
    )
    pair = [Anchor(what, measured(true, trace, what)) for what in ("resident", "no_cache")]
    found = fit(DEVICE, SHAPE, trace, ENGINE, pair)
    assert found.profile.attainable.memory_share.value == pytest.approx(0.9, rel=1e-3)
    assert found.profile.stack.fetch_s.value == pytest.approx(5e-5, rel=1e-2)
    assert "90% of the peak bandwidth" in found.assumed[0]
    with pytest.raises(SpecmdError, match="faster than rtx3090 can read the weights"):
        fit(DEVICE, SHAPE, trace, ENGINE, [Anchor("resident", pair[0].seconds / 2)])


def test_faster_than_the_link_raises_its_rate_up_to_its_wires(trace):
    link = DEVICE.host_link
    quick = link.bytes_per_s.model_copy(update={"value": link.bytes_per_s.value * 1.1})
    true = machine(3e-4, 0.0, host_link=link.model_copy(update={"bytes_per_s": quick}))
    pair = [Anchor(what, measured(true, trace, what)) for what in ("resident", "no_cache")]
    found = fit(DEVICE, SHAPE, trace, ENGINE, pair)
    assert found.profile.host_link.bytes_per_s.value == pytest.approx(quick.value, rel=1e-2)
    assert found.profile.stack.fetch_s.value == 0.0
    with pytest.raises(SpecmdError, match="all that PCIe"):
        fit(DEVICE, SHAPE, trace, ENGINE, [pair[0], Anchor("no_cache", pair[1].seconds / 2)])


def test_a_prefill_is_anchored_by_what_it_attains(trace):
    true = machine(3e-4, 7e-5)
    low = true.attainable.prefill_flops_share.model_copy(update={"value": 0.2})
    shares = {"prefill_flops_share": low, "prefill_memory_share": low}
    true = true.model_copy(update={"attainable": true.attainable.model_copy(update=shares)})
    anchors = [Anchor(what, measured(true, trace, what)) for what in ("resident", "no_cache")]
    first = Anchor("ttft", measured(true, trace, "ttft", "ttft_s"))
    found = fit(DEVICE, SHAPE, trace, ENGINE, [*anchors, first])
    assert found.profile.attainable.prefill_flops_share.value == pytest.approx(0.2, rel=0.02)
    with pytest.raises(SpecmdError, match="even at the peaks"):
        fit(DEVICE, SHAPE, trace, ENGINE, [*anchors, Anchor("ttft", first.seconds / 100)])


def test_a_fitted_profile_is_a_file_that_says_what_it_is(trace, tmp_path):
    anchors = [Anchor("resident", 0.02), Anchor("no_cache", 0.2)]
    found = fit(DEVICE, SHAPE, trace, ENGINE, anchors).profile
    file = tmp_path / "anchored.toml"
    file.write_text(profile_text(found))
    again = read_profile(file)
    assert again.name == "rtx3090-anchored"
    assert again.anchored == "resident=20ms, no_cache=200ms of olmoe-1b-7b"
    assert not again.calibrated
    assert "anchored to resident=20ms" in again.warnings()[0]
    for name, figure in found.figures().items():
        assert again.figures()[name].value == pytest.approx(figure.value, rel=1e-5), name


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        ([], "one or two anchors"),
        ([Anchor("ttft", 1.0)], "one or two anchors"),
        ([Anchor("resident", 0.02)] * 2, "one or two anchors"),
        ([Anchor("60%", 0.02), Anchor("100%", 0.03), Anchor("50%", 0.04)], "one or two anchors"),
        ([Anchor("1024", 0.02), Anchor("100%", 0.3)], "as many copies"),
        ([Anchor("half", 0.02)], "not understood"),
    ],
)
def test_what_says_nothing_together_is_refused(trace, anchors, message):
    with pytest.raises(SpecmdError, match=message):
        fit(DEVICE, SHAPE, trace, ENGINE, anchors)


def test_a_trace_without_prompt_has_no_time_to_first_token(trace):
    decoding = synthetic(num_layers=16, num_experts=64, top_k=8, decode_length=4, num_requests=1)
    with pytest.raises(SpecmdError, match="no recorded prompt"):
        fit(DEVICE, SHAPE, decoding, ENGINE, [Anchor("resident", 0.02), Anchor("ttft", 1.0)])


@pytest.mark.parametrize(
    ("text", "what", "seconds"),
    [
        ("resident=4.4ms", "resident", 4.4e-3),
        ("no_cache=19.1tok/s", "no_cache", 1 / 19.1),
        ("25%=12 ms", "25%", 12e-3),
        ("16/layer=.5s", "16/layer", 0.5),
        ("ttft=900us", "ttft", 9e-4),
    ],
)
def test_anchors_are_read(text, what, seconds):
    assert parse_anchor(text) == Anchor(what, pytest.approx(seconds))


@pytest.mark.parametrize("text", ["", "resident", "=3ms", "resident=3", "resident=0ms", "x=-1s"])
def test_what_is_no_anchor_says_how_to_write_one(text):
    with pytest.raises(SpecmdError, match="write resident="):
        parse_anchor(text)


def test_the_copies_of_an_anchor_are_those_of_a_decode_step(trace):
    # The prefill misses as well: it must not count.
    true = machine(3e-4, 7e-5)
    dear = machine(3e-4, 8e-5)
    steps = np.unique(trace.step[trace.phase == 1])
    misses = (
        replay(trace, RunConfig(capacity="1", capacity_slots=1), residency="none")
        .counters[1, :, [4, 5, 6]]
        .sum()
    )
    more = measured(dear, trace, "no_cache") - measured(true, trace, "no_cache")
    assert more == pytest.approx(1e-5 * misses / len(steps))
