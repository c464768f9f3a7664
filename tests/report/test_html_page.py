"""The page as text, its figures as files, and the command that writes both."""

import json
import re
import sys
from importlib.util import find_spec

import pytest
from made_up_report import report_runs, simulated

from specmd.__main__ import main
from specmd.errors import SpecmdError
from specmd.report.html.page import write_page
from specmd.runs.run import write_run

pytestmark = pytest.mark.skipif(
    find_spec("altair") is None or find_spec("vl_convert") is None,
    reason="needs the extra 'report'",
)
MOST_BYTES = 5_000_000
FEW = [
    run
    for run in report_runs()
    if run.source == "simulated" and run.config.evict in ("lru", "lfru", "belady")
    if run.config.capacity_slots < 200 and run.config.prefetch == "none"
]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "deep" / "page.html"
    write_page(report_runs(), path)
    return path.read_text("utf-8")


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_nothing_is_fetched_from_elsewhere(text):
    body = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r'(?:src|href)="(?!#|data:)', body)
    assert "@import" not in text
    assert "url(" not in re.search(r"<style>.*</style>", text, re.DOTALL)[0]


def test_the_first_screen_needs_no_script(text):
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    for words in ("Which policy?", "How far from Belady?", "copy-bound", "What was skipped?"):
        assert words in body
    assert f"2 of {len(report_runs())} runs" in body
    assert "needs lookahead scores: prefetch next_gate &lt;/script&gt;&lt;b&gt;" in body
    assert body.count('class="badge measured"') >= 1
    assert body.count('class="badge simulated"') >= 2


def test_every_run_has_its_contract_and_provenance(text):
    runs = report_runs()
    of = data_of(text)["table"]["of"]
    assert of["id"] == [run.id for run in runs]
    for section in ("contract", "provenance", "trace"):
        places = of[section]["at"] or [0] * len(runs)
        assert len(places) == len(runs)
    slots = of["config.capacity_slots"]
    assert [slots["words"][i] for i in slots["at"]] == [run.config.capacity_slots for run in runs]


def test_equal_runs_make_equal_pages(tmp_path, text):
    write_page(report_runs(), tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text("utf-8") == text


def test_two_thousand_runs_fit(tmp_path):
    runs = [
        simulated(evict, slots, profile, seed=seed)
        for seed in range(5)
        for profile in ("t4", "h100_sxm", "rtx4090")
        for slots in range(20, 503, 14)
        for evict in ("lru", "lfu", "lfru", "belady")
    ]
    assert len(runs) > 2000
    path = tmp_path / "page.html"
    write_page(runs, path)
    assert path.stat().st_size < MOST_BYTES


def test_nothing_to_say_is_an_error(tmp_path):
    failed = [run for run in report_runs() if run.status != "ok"]
    with pytest.raises(SpecmdError, match="no run has a result"):
        write_page(failed, tmp_path / "page.html")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for run in FEW:
        write_run(run, folder)
    return folder


def test_the_command_writes_page_and_figures(folder, tmp_path, capsys):
    page, figures = tmp_path / "out.html", tmp_path / "figures"
    assert main(["report", str(folder), "--html", str(page), "--figures", str(figures)]) == 0
    assert page.stat().st_size > 500_000
    names = {path.stem for path in figures.iterdir()}
    assert "made_up-simulated-t4-tpot_by_capacity" in names
    assert {"made_up-devices", "made_up-simulated-t4-expert_hits"} <= names
    assert data_of(page.read_text("utf-8"))["maps"]["of"]
    for name in names:
        assert (figures / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (figures / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    drawn = (figures / "made_up-simulated-t4-tpot_by_capacity.svg").read_text("utf-8")
    for words in ("TPOT against capacity", "simulated (t4)", "lfru", "Belady (bound)"):
        assert words in drawn
    assert "var(--" not in drawn
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"out.html: {len(FEW)} runs" in captured.err


@pytest.mark.parametrize("missing", ["altair", "vl_convert"])
def test_without_the_extra_one_line_names_it(folder, tmp_path, monkeypatch, capsys, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    assert main(["report", str(folder), "--html", str(tmp_path / "out.html")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "specmd-bench[report]" in line


def test_it_says_what_to_give(folder, tmp_path, capsys):
    assert main(["report", str(folder)]) == 2
    assert "--html" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["report", str(tmp_path / "empty"), "--html", str(tmp_path / "out.html")]) == 2
    assert "holds no runs" in capsys.readouterr().err
    assert not (tmp_path / "out.html").exists()
