"""Which runs are compared with which, what is said of the others, and what is refused."""

import pytest
from made_up_pairs import edited, folder, grid, measured
from made_up_runs import make_run

from specmd.comparison import compare
from specmd.comparison.tables import summary
from specmd.errors import SpecmdError


def pairs(found):
    return [
        (line.first.config.evict, line.first.config.capacity_slots) for line in found.matched.lines
    ]


def test_a_folder_against_itself_has_no_difference(tmp_path):
    one = folder(tmp_path / "one", grid(profile="t4"))
    found = compare(one, one)
    assert len(found.matched.lines) == 4
    assert found.differences
    assert (found.changed, found.crossed()) == ([], [])
    assert found.matched.compared == {}


def test_what_every_run_of_a_folder_has_in_common_is_compared(tmp_path):
    one = folder(tmp_path / "one", grid(commit="a" * 40, profile="t4"))
    two = folder(tmp_path / "two", grid(commit="b" * 40, profile="h100_sxm", slower=0.5))
    found = compare(one, two)
    assert sorted(pairs(found)) == [("lfu", 51), ("lfu", 102), ("lru", 51), ("lru", 102)]
    assert found.matched.compared["profile"] == ("t4", "h100_sxm")
    assert found.matched.compared["commit"] == ("a" * 9, "b" * 9)
    assert {e.relative for e in found.differences if e.metric.name == "tpot_s"} == {-0.5}


def test_two_policies_are_a_pair_when_folders_differ_in_nothing_else(tmp_path):
    one = folder(tmp_path / "one", grid(policies=("lru",)))
    two = folder(tmp_path / "two", grid(policies=("lfu",)))
    found = compare(one, two)
    assert found.matched.compared == {"evict": ("lru", "lfu")}
    assert [line.first.config.capacity_slots for line in found.matched.lines] == [51, 102]
    assert {c.run.config.evict for line in found.matched.lines for c in line.cells} == {
        "lru",
        "lfu",
    }


def test_what_has_no_partner_is_said(tmp_path):
    one = folder(tmp_path / "one", grid(policies=("lru", "lfu", "fifo")))
    two = folder(tmp_path / "two", grid(policies=("lru", "lfu"), slots=(51,)))
    found = compare(one, two)
    assert sorted(pairs(found)) == [("lfu", 51), ("lru", 51)]
    (said,) = found.matched.alone
    assert said.startswith(f"{one}: 4 of 6 runs have no partner, e.g. ")
    assert "the nearest has" in said


def test_nothing_in_common_is_an_error_that_says_how_near_it_was(tmp_path):
    one = folder(tmp_path / "one", grid(slots=(51, 102)))
    two = folder(tmp_path / "two", grid(slots=(50, 100)))
    with pytest.raises(SpecmdError, match=r"capacity_slots 50, not 51|capacity_slots 100, not 102"):
        compare(one, two)


def test_capacities_as_they_were_spelled_where_their_slots_differ_by_device(tmp_path):
    def free(slots, profile):
        run = make_run("lru", slots, 400, profile=profile)
        config = run.config.model_copy(update={"capacity": "free"})
        return [
            run.model_copy(update={"config": config, "id": f"{slots:016x}"}),
            *grid(policies=("lfu",), slots=(slots + 7,), profile=profile),
        ]

    one = folder(tmp_path / "one", free(100, "t4"))
    two = folder(tmp_path / "two", free(300, "h100_sxm"))
    found = compare(one, two)
    assert pairs(found) == [("lru", 100)]


def test_runs_of_the_same_inputs_and_other_numbers_are_left_out_and_said(tmp_path):
    again = [edited(run, 2.0, "c" * 40, id="f" * 16) for run in grid(profile="t4")[:1]]
    one = folder(tmp_path / "one", [*grid(profile="t4"), *again])
    found = compare(one, folder(tmp_path / "two", grid(profile="t4")))
    assert len(found.matched.lines) == 3
    assert any(
        "2 of 5 runs left out" in text and "--by commit" in text for text in found.matched.alone
    )
    # the same numbers twice are no question
    same = [run.model_copy(update={"id": "f" * 16}) for run in grid(profile="t4")[:1]]
    three = folder(tmp_path / "three", [*grid(profile="t4"), *same])
    assert len(compare(three, tmp_path / "two").matched.lines) == 4


def test_other_contracts_are_refused_unless_they_are_compared(tmp_path):
    one = folder(tmp_path / "one", grid(scope="global"))
    two = folder(tmp_path / "two", grid(scope="layer"))
    with pytest.raises(
        SpecmdError, match=r"the contracts differ in scope .*global and layer.*--anyway"
    ):
        compare(one, two)
    assert compare(one, two, by=["scope"]).matched.columns == ("global", "layer")
    found = compare(one, two, anyway=True)
    assert len(found.matched.lines) == 4
    assert "the contracts differ in scope" in found.cautions[0]


def test_other_traces_of_one_name_are_refused(tmp_path):
    def runs(digest):
        return [
            run.model_copy(update={"trace": run.trace.model_copy(update={"digest": digest})})
            for run in grid()
        ]

    one, two = folder(tmp_path / "one", runs("1" * 32)), folder(tmp_path / "two", runs("2" * 32))
    with pytest.raises(SpecmdError, match=r"the traces of made_up differ .*4 of 4"):
        compare(one, two)
    assert len(compare(one, two, anyway=True).matched.lines) == 4


def test_a_trace_that_was_renamed_is_the_same_trace(tmp_path):
    def called(name):
        return [
            run.model_copy(update={"trace": run.trace.model_copy(update={"name": name})})
            for run in grid()
        ]

    found = compare(folder(tmp_path / "one", called("a")), folder(tmp_path / "two", called("b")))
    assert len(found.matched.lines) == 4


def test_simulated_beside_measured_is_refused_unless_asked_for(tmp_path):
    one = folder(tmp_path / "one", [make_run("lru", 51, 500, profile="t4")])
    two = folder(tmp_path / "two", [measured([0.01, 0.011])])
    with pytest.raises(SpecmdError, match="simulated beside measured: --by source"):
        compare(one, two)
    found = compare(one, two, by=["source"])
    assert found.matched.columns == ("simulated", "measured")
    assert len(found.matched.lines) == 1


def test_by_a_field_pools_all_folders_and_orders_its_values(tmp_path):
    one = folder(tmp_path / "one", grid(slots=(102,)))
    two = folder(tmp_path / "two", grid(slots=(51, 7)))
    assert compare(one, by=["policy"]).matched.columns == ("lfu", "lru")
    assert compare(two, by=["capacity"]).matched.columns == ("7", "51")
    assert compare(one, two, by=["capacity_slots"]).matched.columns == ("102", "7", "51")
    found = compare(one, two, by=["evict", "capacity"])
    assert found.matched.columns[0] == "lfu / 102"


def test_a_field_nobody_has_or_everybody_shares_is_an_error(tmp_path):
    one = folder(tmp_path / "one", grid())
    with pytest.raises(SpecmdError, match="unknown field 'scop': did you mean scope"):
        compare(one, by=["scop"])
    with pytest.raises(SpecmdError, match="all runs have global"):
        compare(one, by=["scope"])
    with pytest.raises(SpecmdError, match="one place of runs"):
        compare(one)
    with pytest.raises(SpecmdError, match="holds no runs"):
        compare(one, folder(tmp_path / "none", []))


def test_every_folder_is_compared_with_the_first(tmp_path):
    paths = [
        folder(tmp_path / name, grid(slower, name * 20, profile="t4"))
        for name, slower in (("aa", 1.0), ("bb", 1.5), ("cc", 2.0))
    ]
    found = compare(*paths)
    ratios = {(e.column, round(e.relative, 9)) for e in found.changed if e.metric.name == "tpot_s"}
    assert ratios == {(1, 0.5), (2, 1.0)}


def test_a_run_that_failed_lost_its_values(tmp_path):
    one = folder(tmp_path / "one", grid(profile="t4"))
    lost = [
        run.model_copy(update={"status": "failed", "reason": "no memory", "metrics": {}})
        for run in grid(profile="t4")
    ]
    two = folder(tmp_path / "two", lost)
    found = compare(one, two, fail_on=["tpot:500%"])
    assert len(found.crossed()) == 4
    assert compare(two, one, fail_on=["tpot:5%"]).changed


def test_a_value_whose_runs_have_no_partner_is_no_column(tmp_path):
    few = [make_run("belady", 51, 400)]  # without a clock, under the name that comes first
    runs = [*few, *grid(profile="t4"), *grid(profile="h100_sxm", slower=0.5)]
    found = compare(folder(tmp_path / "all", runs), by=["profile"])
    assert found.matched.columns == ("h100_sxm", "t4")
    assert found.matched.compared["profile"] == ("h100_sxm", "t4")
    assert [len(line.cells) for line in found.matched.lines] == [2] * 4
    assert found.changed
    (said,) = found.matched.alone
    assert said.startswith("none: 1 of 1 runs have no partner")


def test_runs_without_numbers_are_not_called_equal(tmp_path):
    failed = [run.model_copy(update={"status": "failed", "metrics": {}}) for run in grid()]
    failed = [run.model_copy(update={"decision_digest": "", "reason": "boom"}) for run in failed]
    one, two = folder(tmp_path / "one", failed), folder(tmp_path / "two", failed)
    said = summary(compare(one, two), ["hit_rate"])
    assert said[0].startswith("nothing to hold beside another")
    assert not any("nothing changed" in line or "decisions" in line for line in said)
