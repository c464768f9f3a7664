"""What a report says before its figures: scenes, winners, answers, devices."""

import pytest
from made_up_report import DEVICES, MISSES, SLOTS, report_runs, simulated
from made_up_runs import make_run

from specmd.policy import registry
from specmd.report.html.answers import answer, without_result
from specmd.report.html.charts import figures
from specmd.report.html.devices import across_devices
from specmd.report.html.maps import expert_rows, maps, step_rows
from specmd.report.html.points import BOUNDS, packed, points, quality_metrics, rows
from specmd.report.html.scenes import order, scenes, shown, winner
from specmd.report.html.theme import dashes, lifted, policy_colours
from specmd.runs.metrics import METRICS, PARTS, Metric


def test_a_scene_is_a_trace_on_a_device_in_a_setting():
    found = scenes(report_runs())
    assert [scene.device for scene in found] == [
        *(f"simulated ({name})" for name in DEVICES),
        "measured (a CPU)",
    ]
    assert [scene.measured for scene in found] == [False, False, True]
    assert found[0].title == "made_up, t4"
    assert found[0].slots == list(SLOTS)


def test_what_differs_beside_policies_is_a_setting():
    runs = [simulated("lru", 51, "t4"), simulated("lru", 51, "t4", scope="layer")]
    assert [scene.setting for scene in scenes(runs)] == ["scope global", "scope layer"]
    runs = [simulated("lru", 51, "t4"), simulated("lru", 51, "t4", batch=8)]
    assert [scene.setting for scene in scenes(runs)] == ["no batch", "batch 8"]


def test_seeds_are_one_point():
    runs = [simulated("lru", 51, "t4", seed=seed) for seed in (0, 1)]
    runs[1] = runs[1].model_copy(update={"metrics": runs[1].metrics | {"tpot_s": 0.01}})
    (scene,) = scenes(runs)
    (point,) = [row for row in rows(points([scene]), scene=0) if not row["bound"]]
    low, high = sorted(run.metrics["tpot_s"] * 1e3 for run in runs)
    assert point["tpot_s"] == pytest.approx((low + high) / 2, rel=1e-3)
    assert (point["low"], point["high"]) == (pytest.approx(low, rel=1e-3), pytest.approx(high))


def test_those_that_know_the_future_never_win():
    scene = scenes(report_runs())[0]
    assert winner(scene) == "lfru"
    assert all(name != "belady" for ranked in scene.leaders.values() for _, name in ranked)
    assert order(scene)[-1] == "belady"
    assert "belady" not in shown(scene)


def test_each_policy_of_each_axis_comes_before_a_second_of_any():
    scene = scenes(report_runs())[0]
    first = order(scene)[:4]
    assert set(first) == {"lfru", "lfu", "lru", "lru + prev_token"}


def test_the_answers_are_those_of_the_numbers():
    said = answer(scenes(report_runs())[0])
    tiles = {tile.question: tile for tile in said.tiles}
    assert tiles["Which policy?"].answer == "lfru"
    assert "best at 4 of 4" in tiles["Which policy?"].detail
    assert "%" in tiles["How far from Belady?"].answer
    assert len(said.rows) == len(SLOTS)
    best = min(MISSES["lfru"], MISSES["lfu"]) * (1 - SLOTS[0] / 500)
    assert float(said.rows[0].value) == pytest.approx(2.4 + round(best) * 1e-2, rel=5e-3)
    assert "stall" not in tiles["Is it copy-bound?"].answer


def test_memory_for_ninety_percent_is_from_where_it_stays_there():
    scene = scenes([simulated("lru", slots, "t4") for slots in SLOTS])[0]
    speeds = [0.95, 0.5, 0.92, 0.97]
    runs = [
        run.model_copy(update={"metrics": run.metrics | {"tpot_s": 0.0024 / speed}})
        for speed, (run,) in zip(speeds, scene.runs.values(), strict=True)
    ]
    tile = answer(scenes(runs)[0]).tiles[2]
    assert tile.answer.startswith("2.58 GB")  # 205 slots, not 51 where all policies are alike


def test_a_lead_within_the_spread_of_repetitions_says_so():
    runs = [simulated(evict, 51, "t4", seed=seed) for evict in ("lru", "lfu") for seed in (0, 1)]
    times = (0.010, 0.014, 0.009, 0.011)
    for apart, said in ((0.0, "within spread"), (0.004, "")):
        made = [
            run.model_copy(update={"metrics": run.metrics | {"tpot_s": each + apart * (i < 2)}})
            for i, (run, each) in enumerate(zip(runs, times, strict=True))
        ]
        (row,) = answer(scenes(made)[0]).rows
        assert row.best == "lfu"
        assert row.ahead.partition(", ")[2] == said


def test_without_a_clock_hit_rates_judge():
    said = answer(scenes([make_run(evict, 51, MISSES[evict]) for evict in ("lru", "lfu")])[0])
    assert said.winner == "lfu"
    assert said.scene.judge is METRICS["hit_rate"]
    assert said.tiles[2].answer == "no clock"


def test_rank_changes_between_devices_are_counted_and_marked():
    (rows_of,) = across_devices(scenes(report_runs())).values()
    last = rows_of[-1]
    assert last.winners["simulated (t4)"][0] == "lfru"
    assert last.winners["simulated (h100_sxm)"][0] == "lfu"
    assert last.changes
    assert int(last.turned.split()[0]) > 0
    alike = [simulated(evict, 51, p) for p in ("t4", "rtx4090") for evict in ("lru", "lfu")]
    ((row,),) = across_devices(scenes(alike)).values()
    assert (row.changes, row.turned) == (False, "0 of 1")


def test_what_has_no_result_says_why():
    found = without_result(report_runs())
    assert {(status, number) for status, _, number, _ in found} == {("skipped", 1), ("failed", 1)}
    assert any("next_gate" in which for *_, which in found)


def test_points_have_bounds_beside_them_and_columns_can_be_unpacked():
    columns = points(scenes(report_runs()))
    assert {name for name in columns["policy"] if name in BOUNDS.values()} == set(BOUNDS.values())
    for name, column in packed(columns).items():
        plain = column if isinstance(column, list) else [column["words"][i] for i in column["at"]]
        assert plain == columns[name]


def test_the_front_is_beaten_by_nothing():
    columns = points(scenes(report_runs()))
    real = [row for row in rows(columns, scene=0) if not row["bound"] and row["policy"] != "belady"]
    for point in (row for row in real if row["front"]):
        better = [
            row for row in real
            if row["slots"] <= point["slots"] and row["tpot_s"] < point["tpot_s"]
        ]  # fmt: skip
        assert not better


def test_a_metric_of_quality_is_drawn_the_day_a_run_has_one(monkeypatch):
    quality = Metric("quality_kl", "KL", "ratio", "lower", "quality", "mean KL to the lossless run")
    monkeypatch.setitem(METRICS, "quality_kl", quality)
    runs = report_runs()
    assert quality_metrics(runs) == []
    lossy = [
        run.model_copy(update={"metrics": run.metrics | {"quality_kl": 0.02 * i}})
        for i, run in enumerate(runs[:4])
    ]
    assert quality_metrics(lossy) == ["quality_kl"]
    (figure,) = (f for f in figures(quality_metrics(lossy)) if "quality" in f.name)
    assert figure.title == "KL against speed"
    known = [row for row in rows(points(scenes(lossy)), scene=0) if row["quality_kl"] is not None]
    assert len(known) == 4


def test_every_eviction_policy_has_a_colour_of_its_own():
    names = [entry.name for entry in registry.entries() if entry.axis == "evict"]
    strangers = [f"plugged_{i}" for i in range(20)]
    colours = policy_colours([make_run(name) for name in [*names, *strangers]])
    assert len(set(colours.values())) == len(names) + 20
    assert not set(colours.values()) & {part.colour for part in PARTS.values()}
    assert all(lifted(shade).startswith("#") for shade in colours.values())


def test_compositions_of_one_colour_differ_in_their_dash():
    assert len(set(dashes(["lru", "lru", "lfu", "lru"]))) == 3


def test_maps_take_turns_between_scenes_until_there_is_no_room():
    found = scenes(report_runs())
    whole = maps(found)
    assert len(whole.of) == sum(len(scene.runs) for scene in found)
    few = maps(found, most=4000)
    assert {of["scene"] for of in few.of} == {0, 1, 2}
    assert few.left_out == len(whole.of) - len(few.of)
    assert maps(scenes([simulated("lru", 51, "t4")])).of == []


def test_maps_keep_every_count():
    found = scenes(report_runs())
    made = maps(found)
    place = made.of[0]
    run = found[place["scene"]].runs[place["policy"], place["slots"]][0]
    known = run.details
    cells = expert_rows(made, place)
    assert [cell["missed"] for cell in cells] == known.missed.ravel().tolist()
    assert sum(cell["asked"] for cell in cells) == known.asked.sum()
    assert cells[0]["hit_rate"] is None  # never asked for
    steps = step_rows(made, [place])
    assert steps[-1]["end"] == pytest.approx(1e3 * known.step_parts_s.sum(), rel=1e-2)
    assert all(step["end"] >= step["start"] for step in steps)
