"""The selftest: what it asks of the cpu link, and that a failure neither stops it nor hides."""

from __future__ import annotations

import subprocess
import sys

import pytest

from specmd.calibration import selftest as asked
from specmd.calibration.selftest import NOT_RUN, PARTS, Answer, ask
from specmd.cli import selftest as command
from specmd.simulation import simulate as simulation


@pytest.mark.parametrize("part", ["decisions", "tokens"])
def test_a_part_on_the_cpu_link(specmd, part):
    done = specmd("selftest", "--device", "cpu", "--part", part)
    assert done.code == 0, done.out
    assert done.out.startswith(f"## {part}: passed\n")
    rows = [line for line in done.out.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == {"decisions": 12, "tokens": 14}[part]


def test_bytes_of_the_cpu_link():
    answer = ask("link", "cpu")
    assert answer.passed, answer.failures
    found = dict(answer.rows)
    assert found["moved by a generation (bytes)"] > 0
    assert found["of them pinned, by is_pinned of every blob (bytes)"] == 0


def test_other_decisions_and_other_tokens_are_failures(monkeypatch):
    simulate, generate = simulation.simulate, asked._generate

    def other_capacity(trace, **options):
        return simulate(trace, **options | {"capacity": options["capacity"] + 1})

    def late_token(model, inputs):
        ids, logits = generate(model, inputs)
        if any(parameter.is_meta for parameter in model.parameters()):
            ids[0, -1] += 1
        return ids, logits

    monkeypatch.setattr(simulation, "simulate", other_capacity)
    monkeypatch.setattr(asked, "_generate", late_token)
    answer = ask("decisions", "cpu")
    assert not answer.passed
    assert len(answer.failures) == 12
    answer = ask("tokens", "cpu")
    assert not answer.passed
    assert answer.failures == [
        f"batch {batch}, all resident: other tokens than the model's own" for batch in (1, 8)
    ]


def test_what_a_part_raises_is_its_failure(monkeypatch):
    def broken(name):
        raise ZeroDivisionError("of mine")

    monkeypatch.setitem(PARTS, "link", broken)
    answer = ask("link", "cpu")
    assert not answer.passed
    assert answer.summary == "ZeroDivisionError: of mine"
    assert "in broken" in answer.failures[0]


def test_a_page_has_every_failure_and_the_rest(specmd, monkeypatch, tmp_path):
    answers = {part: Answer(True, f"{part} is fine", ("a", "b"), [(1, "x|y")]) for part in PARTS}
    answers["overlap"] = Answer(False, "no overlap", failures=["too slow", "twice"])
    answers["suite"] = Answer(True, f"{NOT_RUN}nothing to run")

    def apart(argv, limit_s):
        part, out = argv[argv.index("--part") + 1], argv[-1]
        if part == "tokens":
            return True, "its process ended with exit code -6"
        monkeypatch.setitem(PARTS, part, lambda name: answers[part])
        specmd(*argv[3:])
        assert out.endswith(f"{part}.md")
        return False, ""

    monkeypatch.setattr(command, "apart", apart)
    monkeypatch.chdir(tmp_path)
    done = specmd("selftest", "--device", "cpu")
    assert done.code == 1
    assert done.out == ""
    assert "2 of 7 parts failed" in done.err
    page = (tmp_path / "docs/accelerators/device-is-fine.md").read_text()
    assert "no accelerator took part" in page
    for words in (
        "## overlap: FAILED", "too slow", "twice", "## tokens: FAILED", "exit code -6",
        "| suite | not run |", "## calibration: passed", "| 1 | x\\|y |",
    ):  # fmt: skip
        assert words in page
    assert str(tmp_path) not in page


def test_how_a_process_died(monkeypatch):
    code = "import os; print('last words', flush=True); os.abort()"
    died, said = command.apart([sys.executable, "-c", code], 600)
    assert died
    assert "exit code -6" in said
    assert "last words" in said

    def hang(argv, stdout, timeout, **_):
        stdout.write("last words")
        raise subprocess.TimeoutExpired(argv, timeout)

    monkeypatch.setattr(subprocess, "run", hang)
    died, said = command.apart(["anything"], 7)
    assert died
    assert "more than 7 s" in said
    assert "last words" in said


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--device", "cpu", "--part", "overlaps"), "did you mean overlap"),
        (("--device", "pigeon"), "pigeon"),
        (("--device", "cuda:7"), "accelerator"),
    ],
)
def test_what_cannot_be_is_one_line(specmd, argv, said):
    done = specmd("selftest", *argv)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert said in done.err
