"""Routing for a row: the very trace where there is one, else what has the published hit rates."""

from pathlib import Path

import pytest
from made_up_rows import row

from specmd.board.routing import (
    Sizes,
    Target,
    fitted,
    routing_for,
    sizes_of,
    targets_of,
)
from specmd.errors import SpecmdError
from specmd.trace import save, synthetic

SIZES = Sizes(layers=12, experts=64, top_k=4, expert_bytes=1_000_000)


@pytest.mark.parametrize("policy", ["lru", "lfru"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_fit_has_the_hit_rates_it_was_given(policy, scope):
    published = (0.30, 0.55, 0.80, 0.93)
    capacities = ("8/layer", "16/layer", "24/layer", "48/layer")
    targets = tuple(
        Target(capacity, scope, policy, rate)
        for capacity, rate in zip(capacities, published, strict=True)
    )
    fit = fitted(SIZES, targets)
    assert len(fit.residuals) == 4
    assert abs(fit.worst) < 0.03
    assert fit.worst == max(fit.residuals, key=abs)


def test_one_hit_rate_is_met_closely():
    assert abs(fitted(SIZES, (Target("16/layer", "layer", "lru", 0.6),)).worst) < 0.005


def test_the_same_targets_give_the_same_fit():
    targets = (Target("16/layer", "layer", "lru", 0.5),)
    first = fitted(SIZES, targets)
    fitted.cache_clear()
    assert fitted(SIZES, targets) == first


def test_rates_of_the_same_cache_are_averaged_and_others_left_out():
    rows = [
        row(hit_rate=0.5),
        row(hit_rate=0.7),
        row(hit_rate=0.9, hit_of="all"),
        row(hit_rate=0.9, prefetch="next_gate"),
        row(capacity="all"),
        row(hit_rate=None),
    ]
    (target,) = targets_of(rows)
    assert target.hit_rate == pytest.approx(0.6)


def test_labels_say_how_near_the_routing_is(tmp_path: Path):
    trace = synthetic(num_layers=16, num_experts=64, top_k=8, num_requests=1, decode_length=8)
    save(trace, tmp_path / "mine.npz")
    plain, hit = row(), row(hit_rate=0.6, like="others")
    other = row(group="others", hit_rate=0.4)
    assert routing_for(row(trace="mine.npz"), [], tmp_path).label == "trace"
    assert routing_for(row(recording="mine.npz"), [], tmp_path).label == "recorded"
    assert routing_for(row(trace="mine.npz"), [], None).label == "assumed"
    assert routing_for(row(trace="mine.npz"), [hit], None).label == "fitted"
    assert routing_for(hit, [hit], tmp_path).label == "fitted"
    borrowed = routing_for(row(like="others"), [plain, other], tmp_path)
    assert borrowed.label == "assumed"
    assert "others" in borrowed.says


def test_a_recording_of_another_k_is_not_taken(tmp_path: Path):
    trace = synthetic(num_layers=16, num_experts=64, top_k=6, num_requests=1, decode_length=8)
    save(trace, tmp_path / "mine.npz")
    assert routing_for(row(trace="mine.npz"), [], tmp_path).label == "assumed"


def test_another_workload_has_another_routing():
    usual, twice = row(hit_rate=0.4), row(hit_rate=0.9, workload="the same again")
    first = routing_for(usual, [usual, twice], None)
    second = routing_for(twice, [usual, twice], None)
    assert (first.label, second.label) == ("fitted", "fitted")
    assert first.trace.digest != second.trace.digest


def test_a_prompt_is_made_up_where_ttft_is_told():
    told = routing_for(row(ttft_s=1.0, prompt_tokens=24), [], None).trace
    untold = routing_for(row(prompt_tokens=24), [], None).trace
    assert (told.num_tokens, untold.num_tokens) == (72, 48)
    assert told.num_steps == 49


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": None}, "no shape of a model is shipped"),
        ({"expert_bytes": None}, "the size of an expert is not published"),
    ],
)
def test_a_model_of_unknown_size_has_no_routing(changes, says):
    with pytest.raises(SpecmdError, match=says):
        sizes_of(row(**changes))
