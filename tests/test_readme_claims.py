"""What the documents promise of the figures in them is judged, as written and as run."""

import re

import readme

CLAIM = "<!-- assert: TTFT error at most 25 %; TPOT error at most 25 % -->\n"


def document(command, claim=CLAIM):
    return f"{claim}```console measured\n$ {command}\nold\n```\n"


def errors(ttft, tpot):
    lines = (f"{n}: median error 1.0%, largest {e}% over 2 runs" for n, e in (ttft, tpot))
    return "; ".join(f"echo '{line}'" for line in lines)


def test_a_written_error_above_the_promise_is_named():
    good = "TTFT: median error 5.1%, largest 24.9% over 2 runs\nTPOT: median error 1%, largest 3.0%"
    bad = good.replace("24.9", "1033.8")
    assert readme.judge_written(f"{CLAIM}```text\n{good}\n```\n") == []
    (wrong,) = readme.judge_written(f"{CLAIM}```text\n{bad}\n```\n")
    assert wrong == "as written: TTFT error 1033.8% where at most 25% is promised"


def test_a_promise_about_nothing_or_not_understood_is_wrong():
    assert readme.judge("TTFT error at most 25 %", "hello") == ["no error of TTFT is printed"]
    assert readme.judge("always true", "hello") == ["assertion 'always true' is not understood"]


def test_what_the_commands_print_now_is_judged_and_not_written_when_wrong():
    found = readme.refresh(document(errors(("TTFT", 3.0), ("TPOT", 4.0))), measured=True)
    assert (found.wrong, found.skipped) == ([], [])
    assert "largest 3.0%" in found.text
    assert found.text.startswith(CLAIM)
    text = document(errors(("TTFT", 3.0), ("TPOT", 44.0)))
    found = readme.refresh(text, measured=True)
    assert found.wrong == ["as run now: TPOT error 44.0% where at most 25% is promised"]
    assert found.text == text


def test_a_refused_calibration_skips_and_no_measured_block_is_rewritten():
    refused = document("echo 'specmd: error: m.toml is not written: too busy'; exit 1")
    text = "```console measured\n$ echo new\nold\n```\n\n" + refused
    found = readme.refresh(text, measured=True)
    assert found.wrong == []
    assert re.search("is not written: too busy", found.skipped[0])
    assert found.text == text


def test_the_documents_keep_their_promises():
    for name in readme.JUDGED:
        text = (readme.ROOT / name).read_text(encoding="utf-8")
        assert readme.judge_written(text) == [], name
    assert CLAIM in (readme.ROOT / "docs" / "tour.md").read_text(encoding="utf-8")
