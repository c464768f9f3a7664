"""Tables of runs and their renderings."""

import pytest
from made_up_runs import make_run

import specmd
from specmd.errors import SpecmdError
from specmd.report.names import policy_name
from specmd.report.table import default_metrics, run_table
from specmd.report.text import Cell, Column, Section, Table, cells, markdown, plain, terminal
from specmd.trace import synthetic


def grid(**options):
    return [
        make_run(evict, slots, misses + slots, **options)
        for slots in (26, 51)
        for evict, misses in (("lru", 500), ("lfu", 450), ("belady", 300))
    ]


def row_of(table, name, section=0):
    found = [row for row in table.sections[section].rows if row[0].text.split()[0] == name]
    assert len(found) == 1
    return found[0]


def test_sections_share_a_title_and_rows_keep_their_order():
    table = run_table(grid())
    assert "made_up" in table.title
    assert [section.title.split(" of ")[0] for section in table.sections[:2]] == ["26", "51"]
    assert [row[0].text.split()[0] for row in table.sections[0].rows] == [
        "lru", "lfu", "belady", "belady",
    ]  # fmt: skip


def test_the_best_real_policy_is_bold_and_bounds_never_are():
    table = run_table(grid())
    assert row_of(table, "lfu")[1].style == "bold"
    assert row_of(table, "lru")[1].style == ""
    for row in table.sections[0].rows:
        if "†" in row[0].text or "‡" in row[0].text:
            assert {cell.style for cell in row} == {"dim"}


def test_rows_are_ranked_within_their_section_and_bounds_stay_below():
    runs = [make_run(name, slots, misses) for slots in (102, 51) for name, misses in MISSES]
    table = run_table(runs, rank="misses")
    for section in table.sections[:2]:
        labels = [row[0].text.split()[0] for row in section.rows]
        assert labels[:4] == ["lfu", "fifo", "arc", "lru"]
        assert labels[4] == "belady"
    assert [title.split()[0] for title in (s.title for s in table.sections[:2])] == ["102", "51"]
    with pytest.raises(SpecmdError, match="misses"):
        run_table(runs, rank="mises")


MISSES = (("lru", 700), ("lfu", 500), ("fifo", 600), ("arc", 600))


def test_equal_values_are_not_bold():
    table = run_table([make_run("lru", 51, 500), make_run("lfu", 51, 500)])
    assert not any(cell.style == "bold" for row in table.sections[0].rows for cell in row)


def test_baseline_regret_and_bounds():
    table = run_table([make_run("lru", 51, 698)])
    assert row_of(table, "lru")[0].text == "lru *"
    assert row_of(table, "lru")[-1].text == "+100.0"
    labels = [row[0].text for section in table.sections for row in section.rows]
    for name in ("belady", "belady bypass", "compulsory", "all resident", "no cache"):
        assert f"{name} ‡" in labels


def titles(table):
    return [column.title for column in table.columns]


def test_regret_is_given_without_prefetch_only():
    table = run_table([make_run("lru", 51, 698), make_run("lru", 51, 400, prefetch="prev_token")])
    plain_row, ahead = table.sections[0].rows[:2]
    assert titles(table)[-1] == "vs belady (%)"
    assert (plain_row[-1].text, ahead[-1].text) == ("+100.0", "-")
    assert "vs belady (%)" not in titles(run_table([make_run(prefetch="prev_token")]))


def test_both_regrets_are_shown_where_bypass_matters():
    assert titles(run_table([make_run("lru", 51, 698, gap=16)]))[-1] == "vs belady (%)"
    table = run_table([make_run("lru", 51, 698, gap=49)])
    assert titles(table)[-2:] == ["vs belady (%)", "vs bypass (%)"]
    assert [cell.text for cell in row_of(table, "lru")[-2:]] == ["+100.0", "+132.7"]


def test_runs_that_differ_in_their_clock_share_a_row():
    runs = [
        make_run(evict, 51, misses, profile)
        for profile in ("t4", "h100_sxm")
        for evict, misses in (("lru", 500), ("lfu", 400))
    ]
    slower = runs[3].metrics | {"tpot_s": 9.0}
    runs[3] = runs[3].model_copy(update={"metrics": slower})
    table = run_table(runs)
    assert len(table.sections) == 2  # the runs, and the bounds of any capacity
    assert [name for name in titles(table) if "hit rate" in name] == ["hit rate (%)"]
    first = titles(table).index("TPOT (ms) t4")
    assert titles(table)[first + 1] == "TPOT (ms) h100_sxm"
    best = {name: row_of(table, name)[first : first + 2] for name in ("lru", "lfu")}
    assert [cell.style for cell in best["lru"]] == ["", "bold"]
    assert [cell.style for cell in best["lfu"]] == ["bold", ""]
    assert "simulated on t4, simulated on h100_sxm" in table.title


def test_the_roofline_stands_beside_every_timed_result():
    table = run_table([make_run("lru", profile="t4")])
    assert row_of(table, "lru")[titles(table).index("x roofline")].text == "1.25"
    assert "x roofline" not in titles(run_table([make_run("lru")]))


def test_an_estimated_ttft_is_a_line_not_a_column():
    run = make_run("lru", profile="t4").model_copy(update={"ttft_estimate_s": 1.234})
    table = run_table([run, make_run("lfu", profile="t4")])
    assert not any("TTFT" in title for title in titles(table))
    assert [note for note in table.notes if "TTFT" in note] == [
        "TTFT, estimated from prompt lengths, whatever the policy: 1,234 ms (simulated on t4)"
    ]


def test_a_bound_that_was_run_is_not_repeated():
    table = run_table([make_run("belady", 51, 349)])
    labels = [row[0].text for row in table.sections[0].rows]
    assert labels == ["belady †", "belady bypass ‡"]


def test_what_did_not_run_is_a_row_with_its_reason():
    table = run_table([make_run("lru"), make_run("static", status="skipped", reason="needs luck")])
    assert "skipped: needs luck" in plain(table)
    assert "skipped: needs luck" in markdown(table)
    assert "skipped: needs luck" in terminal(table, 80)


def test_every_warning_once_and_alike_ones_together():
    runs = [
        make_run(slots=slots).model_copy(update={"warnings": ["same", f"C={slots} is small"]})
        for slots in (26, 51)
    ]
    notes = run_table(runs).notes
    assert notes.count("warning: same") == 1
    assert "warning: C=26 is small (and 1 more like it)" in notes


def test_what_is_said_of_every_policy_and_profile_is_said_once():
    runs = [
        make_run(evict, profile=profile).model_copy(
            update={"warnings": [f"global {evict} never hits", f"profile {profile} is a guess"]}
        )
        for evict in ("lru", "lfu:resident=true")
        for profile in ("t4", "h100_sxm")
    ]
    found = [note for note in run_table(runs).notes if note.startswith("warning")]
    assert found == [
        "warning: global lru never hits (and 1 more like it)",
        "warning: profile t4 is a guess (and 1 more like it)",
    ]


def test_notes_are_short():
    runs = [
        specmd.simulate("traces/tiny-prose-b1.npz", evict, "20%", profile="t4", tokens=20)
        for evict in ("lru", "belady")
    ]
    assert max(map(len, run_table(runs).notes)) <= 170


def test_the_label_says_simulated_and_the_contract_is_there():
    text = plain(run_table([make_run(profile="t4")]))
    assert "simulated on t4" in text
    assert "contract: event-atomic, scope global" in text


def test_metrics_are_chosen_by_what_is_there():
    assert "tpot_s" not in default_metrics([make_run()])
    assert "tpot_s" in default_metrics([make_run(profile="t4")])
    assert "late_rate" in default_metrics([make_run(prefetch="prev_token")])
    with pytest.raises(SpecmdError, match="hit_rate"):
        run_table([make_run()], ["hit_rat"])


def test_policy_names_say_what_is_not_the_default():
    assert policy_name(make_run("lru")) == "lru"
    run = make_run("lru", prefetch="next_gate:depth=2", schedule="guard", miss="block")
    assert policy_name(run) == "lru + next_gate:depth=2 guard miss=block"


def test_no_runs_make_an_empty_table():
    assert plain(run_table([]))


@pytest.mark.parametrize("options", [{}, {"profile": "rtx4090"}, {"prefetch": "prev_token"}])
def test_a_terminal_of_80_columns_is_enough(options):
    table = run_table(grid(**options))
    for line in terminal(table, 80).splitlines():
        assert len(line.rstrip()) <= 80


def test_a_pipe_gets_no_escapes_and_no_trailing_spaces():
    text = plain(run_table(grid(profile="t4")))
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


def test_numbers_stand_right_and_words_left():
    table = Table(
        [Column("name"), Column("size (MB)", number=True)],
        [Section([cells("a", "1"), cells("longer", "1,000")])],
    )
    assert plain(table).splitlines()[-2:] == ["a            1", "longer   1,000"]


def test_spare_columns_are_left_out_and_named():
    table = Table(
        [Column("name"), Column("a", True), Column("much", True, spare=True)],
        [Section([cells("x" * 16, "1", "2" * 40)])],
    )
    text = terminal(table, 40)
    assert "left out for want of width: much" in text
    assert "2" * 40 not in text
    assert "2" * 40 in plain(table)


def test_markdown_escapes_pipes_and_marks_the_best():
    table = Table(
        [Column("name"), Column("n", True)], [Section([[Cell("a|b"), Cell("1", "bold")]])]
    )
    assert markdown(table).splitlines()[-1] == "| a\\|b | **1** |"


STANDING = (
    "profile t4 is not calibrated (`specmd calibrate`): compare policies by its times, promise "
    "nothing",
    "software assumed: hand-written runtime, launched one by one (--engine grouped)",
)


def test_what_is_the_same_below_every_table_is_one_line():
    runs = [
        run.model_copy(update={"warnings": [*STANDING, "the cache is too large: " + "so " * 40]})
        for run in grid(profile="t4")
    ]
    brief, full = run_table(runs).notes, run_table(runs, verbose=True).notes
    assert len(brief) == 3
    assert brief[0].startswith("* baseline · † knows the future · ")
    assert brief[1] == "warning: the cache is too large"
    assert brief[2].startswith("contract: event-atomic, scope global, forced")
    assert brief[2].endswith("; t4 not calibrated; grouped engine assumed (-v)")
    assert [f"warning: {text}" in full for text in STANDING] == [True, True]
    assert any(note.startswith("* the usual baseline") for note in full)
    assert any("staging 2" in note for note in full)


def test_standing_warnings_are_those_that_a_simulation_makes():
    run = specmd.simulate("traces/tiny-prose-b1.npz", "lru", "20%", profile="t4", tokens=20)
    assert not any(
        word in note for note in run_table([run]).notes for word in ("software", "calibrate`")
    )
    assert "t4 not calibrated; grouped engine assumed" in run_table([run]).notes[-1]


def test_numbers_have_three_digits_and_what_reads_alike_is_said_once():
    runs = [make_run("lru", 51, 880, profile) for profile in ("t4", "h100_sxm")]
    nearly = runs[1].metrics | {"hit_rate": 0.1204}
    runs[1] = runs[1].model_copy(update={"metrics": nearly})
    assert runs[0].metrics["hit_rate"] != runs[1].metrics["hit_rate"]
    table = run_table(runs)
    assert "hit rate (%)" in titles(table)
    assert row_of(table, "lru")[titles(table).index("hit rate (%)")].text == "12.0"
    assert row_of(table, "lru")[titles(table).index("TPOT (ms)")].text == "11.2"


def test_a_terminal_of_80_columns_breaks_no_name(specmd_lists):
    for lines in specmd_lists.values():
        assert all(len(line.rstrip()) <= 80 for line in lines)
    words = [line.split()[0] for line in specmd_lists["metrics"] if line.strip()]
    assert "ttft_late_prefetch_stall_s" in words
    assert any("tiny-mixed-b8-long.npz" in line for line in specmd_lists["traces"])


@pytest.fixture
def specmd_lists():
    from specmd.cli.list_ import _metrics, _policies, _table, _traces

    records = {"metrics": _metrics(), "policies": _policies([]), "traces": _traces([])}
    return {kind: terminal(_table(kind, rows), 80).splitlines() for kind, rows in records.items()}


def test_the_memory_of_a_device_is_not_said_of_another():
    runs = [
        specmd.simulate("traces/tiny-prose-b1.npz", "lru", "20%", profile=profile, tokens=20)
        for profile in ("t4", "h100_sxm")
    ]
    assert "of 17.18 GB on the device" in run_table(runs[:1]).title
    assert " MB on the device" in run_table(runs).title
    assert "17.18" not in run_table(runs).title


def test_runs_with_and_without_a_clock_never_borrow_each_others_times():
    trace = specmd.trace.synthetic(num_layers=2, num_experts=4, top_k=1, expert_bytes=10**6)
    runs = [
        specmd.simulate(trace, "lru", 3, profile=profile, bounds=False, interpreted=True)
        for profile in (None, "t4", "rtx4090")
    ]
    table = run_table(runs)
    headers = [column.title for column in table.columns]
    assert not [header for header in headers if "None" in header]
    timed = [at for at, header in enumerate(headers) if header.startswith("TPOT")]
    assert [headers[at].split()[-1] for at in timed] == ["t4", "rtx4090"]
    untimed = table.sections[0].rows[0]
    assert [untimed[at].text for at in timed] == ["-", "-"]
    assert all(table.sections[1].rows[0][at].text != "-" for at in timed)


def test_lossy_runs_show_what_they_keep():
    trace = synthetic(logits=True, num_requests=2, decode_length=12)
    lossless, lossy = (
        specmd.simulate(trace, "lru", "20%", miss=miss, bounds=False)
        for miss in ("overlap", "drop:factor=1")
    )
    kept = {"true hit rate (%)", "kept mass (%)"}
    assert not kept & set(titles(run_table([lossless])))
    table = run_table([lossless, lossy])
    assert kept < set(titles(table))
    assert [row[0].text.endswith("~") for row in table.sections[0].rows] == [False, True]
    assert any("~ lossy" in note for note in table.notes)
