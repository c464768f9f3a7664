"""Spans of a simulated step: they are what was counted, no more and no less."""

import json
from itertools import pairwise

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.runs.resolve import make_grid
from specmd.simulation.replay import replay
from specmd.simulation.simulate import hardware, prepared
from specmd.simulation.spans import Watcher, step_spans
from specmd.simulation.walk import Walk
from specmd.trace import load

OPTIONS = [
    {},
    {"miss": "block"},
    {"miss": "host:tokens=1"},
    {"prefetch": "prev_token", "schedule": "cancel"},
    {"prefetch": "next_gate", "schedule": "guard", "capacity": "12%"},
    {"capacity": "3"},
    {"admission": "bypass", "scope": "layer"},
]


@pytest.fixture(scope="module")
def trace():
    return load("traces/tiny-prose-b1.npz")


def one(trace, **options):
    asked = {"evict": "lru", "capacity": "25%", "profile": "t4", "tokens": 200} | options
    (config,) = make_grid({name: [value] for name, value in asked.items()}).expand(trace)
    return config


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_spans_add_up_to_the_step_and_nothing_overlaps(trace, options):
    config = one(trace, **options)
    cut = prepared(trace, config)
    costs = hardware(cut, config)[1]
    watcher = Watcher(cut.header.num_experts)
    outcome = Walk(cut, config, None, costs, "cache", True, None, also=watcher.hooks()).run()
    whole = replay(cut, config, costs=costs, interpreted=True)
    assert outcome.decision_digest == whole.decision_digest
    seconds = whole.step_seconds.sum(axis=1)
    assert len(watcher.step_s) == len(seconds)
    edges = np.array([*watcher.step_s.values(), np.inf])
    took = np.zeros(len(seconds))
    for track in ("compute", "stall", "link"):
        spans = [span for span in watcher.spans if span.track == track]
        spans.sort(key=lambda span: span.begin_s)
        assert all(a.end_s <= b.begin_s + 1e-12 for a, b in pairwise(spans))
        if track != "link":
            for span in spans:
                step = np.searchsorted(edges, span.begin_s, "right") - 1
                took[step] += span.end_s - span.begin_s
    np.testing.assert_allclose(took, seconds, rtol=1e-9)
    link_s = sum(span.end_s - span.begin_s for span in watcher.spans if span.track == "link")
    assert link_s == pytest.approx(whole.link_busy_s)


def test_the_file_has_three_steps_and_the_first_is_a_median_one(trace, tmp_path):
    config = one(trace)
    found = step_spans(trace, config)
    found.timeline.write(tmp_path / "steps.json")
    events = json.loads((tmp_path / "steps.json").read_text())
    spans = [event for event in events if event["ph"] == "X"]
    steps = [event["name"] for event in spans if event["name"].startswith("step ")]
    assert [int(name.split()[1].rstrip(":")) for name in steps] == [
        found.step, found.step + 1, found.step + 2,
    ]  # fmt: skip
    assert any(event["name"].endswith(" demand") for event in spans)
    run = replay(prepared(trace, config), config, costs=hardware(trace, config)[1])
    assert run.step_seconds[found.step].sum() == pytest.approx(found.seconds)


def test_late_prefetches_are_named(trace):
    config = one(trace, prefetch="prev_token", capacity="15%", profile="laptop_ddr4")
    watcher = Watcher(trace.header.num_experts)
    cut = prepared(trace, config)
    costs = hardware(cut, config)[1]._replace(bytes_per_s=5e8)
    Walk(cut, config, None, costs, "cache", True, None, also=watcher.hooks()).run()
    causes = {span.name.split(" ", 2)[2] for span in watcher.spans if span.track == "link"}
    assert causes == {"demand", "late prefetch", "prefetch"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"profile": None}, "give --profile"),
        ({"host_capacity": "50%", "profile": "rtx4090"}, "--host-capacity"),
    ],
)
def test_what_has_no_timeline_says_why(trace, options, said):
    asked = {name: value for name, value in options.items() if value is not None}
    config = one(trace, **asked)
    if "profile" in options and options["profile"] is None:
        config = config.model_copy(update={"profile": None})
    with pytest.raises(SpecmdError, match=said):
        step_spans(trace, config)


def test_the_command_writes_one_run(specmd_simulate, tmp_path, capsys):
    file = tmp_path / "steps.json"
    assert specmd_simulate("-e", "lru", "-e", "lfu", "--timeline", file) == 2
    assert not file.exists()
    assert specmd_simulate("-e", "lru", "-c", "25%", "--timeline", file) == 0
    assert f"{file}: step " in capsys.readouterr().err
    assert json.loads(file.read_text())


@pytest.fixture
def specmd_simulate():
    from specmd.__main__ import main

    return lambda *options: main(
        [
            "simulate",
            "traces/tiny-prose-b1.npz",
            "--profile",
            "t4",
            "--no-bounds",
            *map(str, options),
        ]
    )
