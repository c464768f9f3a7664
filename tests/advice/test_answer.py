"""The recommendation: as good as trying everything, the same each time, and honest about limits."""

import dataclasses

import pytest

from specmd.advice.answer import Answer, recommend
from specmd.advice.commands import commands
from specmd.advice.question import Question
from specmd.advice.screen import answer_table, records
from specmd.advice.space import composition, make_space
from specmd.errors import SpecmdError
from specmd.policy.needs import offered
from specmd.report.text import plain
from specmd.simulation.simulate import try_config

ASKED = Question("8MB", ("rtx4090", "t4"))
FOUND: list[Answer] = []


@pytest.fixture
def answered(one_trace, few_policies):
    """The answer to ASKED of the one trace, found once for all tests that read it."""
    if not FOUND:
        FOUND.append(recommend(one_trace, ASKED, workers=1))
    return FOUND[0]


@pytest.mark.usefixtures("few_policies")
def test_the_choice_is_the_best_of_all(small_trace):
    asked = dataclasses.replace(ASKED, options={"context": 64})
    found = recommend(small_trace, asked, workers=1)
    space = make_space(offered(small_trace, None), small_trace.header.num_layers)
    best: dict[str, float] = {}
    for config in asked.configs(small_trace, list(space.compositions())):
        run = try_config(small_trace, config, bounds=False)
        name = str(run.config.profile)
        best[name] = min(asked.value(run), best.get(name, float("inf")))
    for column in found.columns:
        mine = column.ranking[0][1]
        assert mine >= best[column.profile]
        assert mine <= 1.01 * best[column.profile]
        assert column.winner.metrics["tpot_s"] == mine
        assert composition(column.winner.config) == column.ranking[0][0]


@pytest.mark.usefixtures("few_policies")
def test_one_question_has_one_answer(one_trace, answered):
    first, second = answered, recommend(one_trace, ASKED, workers=1)
    assert records(first, "t.npz") == records(second, "t.npz")
    other = recommend(one_trace, dataclasses.replace(ASKED, seed=1), workers=1)
    drawn = [each.columns[0].tpot for each in (first, other)]
    assert drawn[0] is None or drawn[0] != drawn[1]  # the seed is that of the bootstrap, too


@pytest.mark.usefixtures("few_policies")
def test_what_would_buy_more(one_trace):
    (column,) = recommend(one_trace, Question("8MB", ("t4",)), workers=1).columns
    mine = column.ranking[0][1]
    gains = {name: each.value_s for name, each in column.more.items()}
    assert set(gains) == {
        *("2 GB more", "link twice as fast", "perfect policy", "perfect prefetcher"),
        "all experts resident",
    }
    assert gains["link twice as fast"] < mine
    assert gains["all experts resident"] < gains["2 GB more"] < mine  # first uses remain
    assert column.winner.metrics["over_roofline"] >= 1


@pytest.mark.usefixtures("few_policies")
def test_all_fits(one_trace):
    found = recommend(one_trace, Question("1GB", ("t4",)), workers=1)
    assert found.all_fits
    assert found.slots == found.keys
    assert "2 GB more" not in found.columns[0].more


@pytest.mark.usefixtures("few_policies")
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory": "1MB"}, "less than one expert"),
        ({"memory": "much"}, "not understood"),
        ({"memory": "20GB"}, "t4 has 17.2 GB"),
        ({"profiles": ("t5",)}, "unknown hardware profile"),
        ({"profiles": ()}, "--profile"),
        ({"profiles": ("t4", "t4")}, "two profiles are called t4"),
        ({"objective": "ttft", "options": {"tokens": 1}}, "nothing whole of it"),
    ],
)
def test_what_cannot_be_answered(one_trace, changes, said):
    asked = dataclasses.replace(Question("8MB", ("t4",)), **changes)
    with pytest.raises(SpecmdError, match=said):
        recommend(one_trace, asked, workers=1)


@pytest.mark.usefixtures("few_policies")
def test_skipped_policies_are_named(answered):
    table = plain(answer_table(answered))
    assert "evict belady" in table
    assert "knows the future" in table
    assert "evict static (needs a training trace)" in table


@pytest.mark.usefixtures("few_policies")
def test_commands_say_all_that_the_answer_rests_on(one_trace):
    asked = dataclasses.replace(ASKED, seed=3, options={"context": 64, "engine": "graph"})
    found = recommend(one_trace, asked, workers=1)
    found = dataclasses.replace(found, training="learned.npz", plugins=("mine.py",))
    simulated, *live = commands(found, "t.npz")
    for command in (simulated, *live):
        assert "--seed 3" in command
        assert "--training learned.npz --plugin mine.py" in command
    assert "-c '8MB total'" in simulated
    assert "--context 64 --engine graph" in simulated
    assert live  # it has no device profile: the slots are given, not what they are made of
    for command in live:
        assert f" -c {found.slots}" in command
        assert "--context" not in command
        assert "--engine" not in command
