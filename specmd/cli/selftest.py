"""`specmd selftest`: whether the live cache does on this device what it promises, as a page."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specmd.errors import Exit, SpecmdError, unknown

if TYPE_CHECKING:
    from specmd.calibration.selftest import Answer

PASSED, FAILED = "passed", "FAILED"
_TAIL = 2000  # characters of what a dead process said


def selftest(
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="cuda, another that torch reports, or cpu; default what is here."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Page to write; default docs/accelerators/<device name>.md."
        ),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only one part; prints it without --out.")
    ] = None,
    limit: Annotated[
        float, typer.Option(metavar="SECONDS", min=1, help="A part that takes longer has failed.")
    ] = 300,
) -> int:
    """Test the live cache on a device and write a page of evidence.

    Failures are on the page, too.

    Facts of the device; bytes pinned and moved, and how fast; decisions beside the simulator's;
    tokens beside those of a cache that holds every expert; overlap of copies and computing;
    calibration, and runs simulated with it beside measured; and, in a clone, the tests that need an
    accelerator. Exit code 1 if any part failed; the others are run all the same.
    """
    from specmd.calibration.selftest import PARTS, ask
    from specmd.files import write_text
    from specmd.live.placement import find_device

    name = find_device("auto", device)[0].type
    if device not in (None, name):
        raise SpecmdError(
            f"device {device}: give {name}; hide all but one from torch to choose one"
        )
    if part is not None:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
        answer = ask(part, name)
        text = section(part, answer)
        if out is None:
            typer.echo(text, nl=False)
        else:
            write_text(out, text)
        return Exit.OK if answer.passed else Exit.RUN_FAILED
    sections: list[str] = []
    seconds: list[float] = []
    title, page = name, out
    with tempfile.TemporaryDirectory() as folder:
        for number, each in enumerate(PARTS):
            typer.echo(f"specmd: {each} ({number + 1} of {len(PARTS)})", err=True)
            file, start = Path(folder) / f"{each}.md", time.monotonic()
            argv = ["selftest", "--device", name, "--part", each, "--out", str(file)]
            died, ended = apart([sys.executable, "-m", "specmd", *argv], limit)
            text = file.read_text("utf-8") if file.is_file() else ""
            if died or not text:
                text = f"## {each}: {FAILED}\n\n{ended}\n\n{text.partition(chr(10))[2]}"
            sections.append(text)
            seconds.append(time.monotonic() - start)
            typer.echo(f"specmd: {verdict(text)}: {summary(text)}", err=True)
            if not number and verdict(text) == PASSED:
                title = summary(text)
            page = page or Path("docs/accelerators") / f"{_slug(title)}.md"
            write_text(page, _page(title, name, sections, seconds))
    failed = sum(verdict(text) == FAILED for text in sections)
    typer.echo(f"specmd: {page}: {failed} of {len(sections)} parts failed", err=True)
    return Exit.RUN_FAILED if failed else Exit.OK


def apart(argv: Sequence[str], limit_s: float) -> tuple[bool, str]:
    """Run this program once more; returns whether it died, and how it ended with its last words."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        given: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": said, "stderr": said}
        try:
            done = subprocess.run(argv, timeout=limit_s, check=False, **given)  # noqa: S603
            ended = f"its process ended with exit code {done.returncode}"
            died = done.returncode not in (Exit.OK, Exit.RUN_FAILED)
        except subprocess.TimeoutExpired:
            died, ended = True, f"it took more than {limit_s:g} s and was ended"
        said.seek(0)
        return died, f"{ended}\n\n{_block(said.read()[-_TAIL:])}"


def section(part: str, answer: Answer) -> str:
    """Write one part as Markdown."""
    blocks = [f"## {part}: {PASSED if answer.passed else FAILED}", answer.summary]
    if answer.rows:
        blocks.append(_table(answer.columns, answer.rows))
    blocks += [_block(failure) for failure in answer.failures]
    if answer.profile:
        blocks.append(_block(answer.profile, "toml"))
    return "\n\n".join(blocks) + "\n"


def verdict(text: str) -> str:
    """Return PASSED, FAILED or "not run" of a section."""
    from specmd.calibration.selftest import NOT_RUN

    if summary(text).startswith(NOT_RUN):
        return NOT_RUN.strip(" :")
    return text.splitlines()[0].rpartition(": ")[2]


def summary(text: str) -> str:
    """Return the line under a section's title."""
    return text.splitlines()[2]


def _page(title: str, name: str, sections: Sequence[str], seconds: Sequence[float]) -> str:
    from specmd.cli.env import facts

    about = "`make accelerator` or `specmd selftest` wrote this page, failures included."
    if name == "cpu":
        about += " **The cpu link: no accelerator took part.**"
    elif name not in ("cuda", "xpu", "mps"):
        about += f" **`{name}` comes from a plug-in of torch, and may be emulated.**"
    known = facts()
    del known["kernel cache"]  # a path of this machine
    rows = [
        (text.splitlines()[0].split()[1].strip(":"), verdict(text), f"{took:.0f}", summary(text))
        for text, took in zip(sections, seconds, strict=True)
    ]
    return (
        "\n\n".join(
            [
                f"# {title}",
                about,
                _table(("part", "verdict", "seconds", "what"), rows),
                *(text.rstrip() for text in sections),
                "## where",
                _table(("fact", "value"), [*known.items(), ("date", time.strftime("%Y-%m-%d"))]),
            ]
        )
        + "\n"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    spelled = [
        [str(cell).replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in spelled)


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.strip()}\n```"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
