"""The questions of the paper, asked again: runs every experiment and rewrites the texts' tables.

    python experiments/reproduce.py [NAME ...] [--texts] [--own]

An experiment is a folder with `others.toml` (recordings of real models by others, where they are
here: see `reproduction/recordings.py`) and `own.toml` (the project's traces), each what
`specmd sweep --config` runs. Its numbers are kept as CSV beside it, and its text is made of them.
Where recordings are missing their numbers stay. Exit code 1: a finding no longer holds.
"""

# ruff: noqa: T201 - what changed is what this script prints
from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "experiments"))

import pandas as pd  # noqa: E402
from reproduction.drawing import draw  # noqa: E402
from reproduction.numbers import HALVES, changes, made_by, read, rows_of, write  # noqa: E402
from reproduction.questions import FOLDER, Numbers, questions, read_question  # noqa: E402
from reproduction.recordings import CACHE, RECORDINGS, make_ready  # noqa: E402
from reproduction.texts import parts_of, render  # noqa: E402

from specmd.errors import SpecmdError  # noqa: E402
from specmd.sweep.experiment import read_experiment  # noqa: E402

SHOWN = 12


def main(given: Sequence[str] | None = None) -> int:
    """Run what was named, or all; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="experiments; all without")
    parser.add_argument("--texts", action="store_true", help="run nothing: texts from the numbers")
    parser.add_argument("--own", action="store_true", help="only the project's own traces")
    parser.add_argument("--draw", nargs=2, metavar=("NAME", "FILE.png"), help="its figure, only")
    args = parser.parse_args(given)
    if args.draw:
        paint(args.draw[0], Path(args.draw[1]))
        return 0
    begun = time.monotonic()
    broken = 0
    for name in args.names or questions():
        started = time.monotonic()
        print(f"== {name}")
        if not args.texts:
            for half in ("own",) if args.own else HALVES:
                answer(name, half)
        broken += rewrite(name)
        if not args.texts:
            print(f"   {time.monotonic() - started:.0f} s")
    index = FOLDER / "README.md"
    if _put(index, render(index.read_text(encoding="utf-8"), {"index": index_text()})):
        print("== README.md: rewritten")
    print(f"{time.monotonic() - begun:.0f} s, {broken} findings no longer true")
    return 1 if broken else 0


def answer(name: str, half: str) -> None:
    """Run one half of an experiment and write its numbers, if they are others than before."""
    config = FOLDER / name / f"{half}.toml"
    if not config.is_file():
        return
    missing = [path.stem for path in _prepare(config) if not path.is_file()]
    if missing:
        print(f"   {half}: {', '.join(missing)} not here, numbers stay as they are")
        return
    runs = run(config)
    question = read_question(name)
    rows = rows_of(runs, question.metrics, question.options)
    path = FOLDER / name / f"{half}.csv"
    differ = ["all of it: there were no numbers"]
    if path.is_file():
        differ = changes(read(path)[0], rows, question.metrics)
    if differ:
        write(path, rows, made_by(runs))
    print(f"   {half}: {len(rows)} runs, {len(differ) or 'nothing'} changed")
    for line in differ[:SHOWN]:
        print(f"      {line}")


def _prepare(config: Path) -> tuple[Path, ...]:
    """Make the traces of an experiment ready; return their paths."""
    paths = read_experiment(config).traces
    for path in paths:
        if path.resolve().parent == CACHE.resolve() and path.stem in RECORDINGS:
            make_ready(path.stem)
    return paths


def run(config: Path) -> list[dict[str, Any]]:
    """Run `specmd sweep --config` and return its runs."""
    command = [sys.executable, "-m", "specmd", "sweep", "--config", str(config.relative_to(ROOT))]
    done = subprocess.run(  # noqa: S603 - our own program
        [*command, "--format", "json"], cwd=ROOT, stdout=subprocess.PIPE, check=False
    )
    if not done.stdout:
        raise SpecmdError(f"{config}: the sweep failed with exit code {done.returncode}")
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def halves_of(name: str) -> dict[str, tuple[pd.DataFrame, Mapping[str, Any]]]:
    """Read the committed numbers of an experiment."""
    paths = {half: FOLDER / name / f"{half}.csv" for half in HALVES}
    return {half: read(path) for half, path in paths.items() if path.is_file()}


def rewrite(name: str) -> int:
    """Make an experiment's text and figure of its numbers; return how many findings are false."""
    question = read_question(name)
    halves = halves_of(name)
    text = FOLDER / name / "README.md"
    changed = _put(text, render(text.read_text(encoding="utf-8"), parts_of(question, halves)))
    if changed:
        print("   text rewritten")
    picture = FOLDER / name / "figure.png"
    if question.figure is not None and (changed or not picture.is_file()):
        paint(name, picture)
    both = Numbers(pd.concat([rows for rows, _ in halves.values()], ignore_index=True))
    false = [each for each in question.findings(both) if not each.holds]
    for each in false:
        print(f"   NO LONGER TRUE: {each.text}")
    return len(false)


def paint(name: str, path: Path) -> None:
    """Draw an experiment's figure into a file, of the numbers of real models."""
    figure = read_question(name).figure
    if figure is None:
        raise SpecmdError(f"{name} has no figure")
    draw(figure, halves_of(name)["others"][0], path)


def index_text() -> str:
    """Make the table of the index: each question with its first finding."""
    lines = [
        "| question | the first finding | agrees | differs | beyond |",
        "|---|---|--:|--:|--:|",
    ]
    for name in questions():
        halves = halves_of(name)
        if not halves:
            lines.append(f"| {name} | not answered yet | | | |")
            continue
        both = Numbers(pd.concat([rows for rows, _ in halves.values()], ignore_index=True))
        found = read_question(name).findings(both)
        title = (FOLDER / name / "README.md").read_text(encoding="utf-8").splitlines()[0]
        counts = [
            str(sum(each.verdict == kind for each in found))
            for kind in ("agrees", "differs", "beyond")
        ]
        cells = [f"[{title.removeprefix('# ')}]({name}/README.md)", found[0].text, *counts]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _put(path: Path, text: str) -> bool:
    """Write a text if it is another one; say whether it was."""
    if path.read_text(encoding="utf-8") == text:
        return False
    path.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    try:
        sys.exit(main())
    except SpecmdError as error:
        sys.exit(f"reproduce: error: {error}")
