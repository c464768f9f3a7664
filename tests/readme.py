"""Run the commands of the documentation and compare what they print with what is written there.

    python tests/readme.py            check; exit code 1 and a diff if something differs
    python tests/readme.py --write    put the present output into the documents

In a block marked `console`, a line that starts with `$ ` is a command and the lines after it are
its output, standard error included. One marked `console measured` holds times of some machine: its
commands must succeed, its output is only rewritten. What it must show all the same stands above it:

    <!-- assert: TTFT error at most 25 %; TPOT error at most 25 % -->

judges the largest error that a validation in the block prints, both as it is written in the
document and as the commands print it now (in the documents that are not run, only what is written).
Where `specmd calibrate` refuses this machine, or others used it while runs were measured, the block
is skipped and the reason said. Measured blocks of a document are rewritten all together, or, where
one was skipped or is wrong, not at all.

A block under `<!-- file: NAME -->` is a file, which the commands find in their working directory,
beside `traces/`.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/tour.md", "docs/plugins.md")
JUDGED = (*DOCUMENTS, "docs/validation.md")
BLOCK = re.compile(
    r"^(?:<!-- assert: (?P<claims>.+?) -->\n+)?"
    r"^```(?P<kind>console(?: measured)?)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
CLAIMED = re.compile(
    r"^<!-- assert: (?P<claims>.+?) -->\n+```[\w ]*\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
CLAIM = re.compile(r"(?P<metric>\w+) error at most (?P<limit>[0-9.]+) ?%")
UNFIT = re.compile(r"is not written: .*|\d+ of \d+ runs were measured on a busy machine.*")
FILE = re.compile(r"<!-- file: (\S+) -->\n+```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Commands of a block; a trailing backslash goes on in the next line."""
    joined = block.replace("\\\n", "\\\0")
    lines = [line.replace("\0", "\n") for line in joined.split("\n")]
    return [line[2:] for line in lines if line.startswith("$ ")]


def run(command: str, folder: Path) -> tuple[int, str]:
    """Return the exit code and what a reader would see."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
    }
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.rstrip("\n")


def judge(claims: str, text: str) -> list[str]:
    """List what a block prints that its assertion forbids."""
    wrong = []
    for spelled in claims.split(";"):
        claim = CLAIM.fullmatch(spelled.strip())
        if claim is None:
            wrong.append(f"assertion '{spelled.strip()}' is not understood")
            continue
        found = re.findall(rf"^{claim['metric']}: median error .*largest ([0-9.]+)%", text, re.M)
        if not found:
            wrong.append(f"no error of {claim['metric']} is printed")
        wrong += [
            f"{claim['metric']} error {error}% where at most {claim['limit']}% is promised"
            for error in found
            if float(error) > float(claim["limit"])
        ]
    return wrong


def judge_written(text: str) -> list[str]:
    """Judge every block of a document that has an assertion, as it is written."""
    return [
        f"as written: {wrong}"
        for block in CLAIMED.finditer(text)
        for wrong in judge(block["claims"], block["text"])
    ]


@dataclass
class Outcome:
    """A document with the present output, what is wrong with that, and what was skipped."""

    text: str = ""
    wrong: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def refresh(text: str, *, measured: bool) -> Outcome:
    """Run a document: its present output, in every console block or in all but the measured."""
    outcome = Outcome()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "traces").symlink_to(ROOT / "traces")
        for match in FILE.finditer(text):
            (folder / match[1]).write_text(match[2], encoding="utf-8")
        blocks = [replay(match, folder, outcome) for match in BLOCK.finditer(text)]
    keep_measured = not measured or bool(outcome.skipped or outcome.wrong)
    present = iter(blocks)

    def rewritten(match: re.Match[str]) -> str:
        block = next(present)
        if keep_measured and match["kind"] != "console":
            return match[0]
        return match[0].replace(f"\n{match['text']}```", f"\n{block}```")

    outcome.text = BLOCK.sub(rewritten, text)
    return outcome


def replay(match: re.Match[str], folder: Path, outcome: Outcome) -> str:
    """Return a block as it should read; note what is wrong with it, or why it was skipped."""
    timed = match["kind"] != "console"
    parts = []
    for command in commands(match["text"]):
        code, output = run(command, folder)
        unfit = UNFIT.search(output) if timed else None
        if unfit:
            outcome.skipped.append(f"{command}: {unfit[0]}")
            return match["text"]
        if code and timed:
            sys.exit(f"{command}: exit code {code}\n{output}")
        parts.append(f"$ {command}\n" + (f"{output}\n" if output else ""))
    block = "\n".join(parts)
    if match["claims"]:
        outcome.wrong += [f"as run now: {wrong}" for wrong in judge(match["claims"], block)]
    return block


def main() -> int:
    """Check or write all documents."""
    write = "--write" in sys.argv[1:]
    failed = False
    for name in JUDGED:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        outcome = refresh(before, measured=write) if name in DOCUMENTS else Outcome(before)
        wrong = [*judge_written(outcome.text), *outcome.wrong]
        for text in outcome.skipped:
            sys.stdout.write(f"{name}: skipped: {text}\n")
        for text in wrong:
            sys.stdout.write(f"{name}: WRONG: {text}\n")
        failed |= bool(wrong)
        if before == outcome.text:
            sys.stdout.write(f"{name}: agrees with the program\n")
        elif write:
            path.write_text(outcome.text, encoding="utf-8")
            sys.stdout.write(f"{name}: written\n")
        else:
            failed = True
            diff = difflib.unified_diff(
                before.splitlines(), outcome.text.splitlines(), name, f"{name} (now)", lineterm=""
            )
            sys.stdout.write("\n".join(diff) + "\n")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
