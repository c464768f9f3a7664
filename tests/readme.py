"""Run the commands of the documentation and compare what they print with what is written there.

    python tests/readme.py            check; exit code 1 and a diff if something differs
    python tests/readme.py --write    put the present output into the documents

In a block marked `console`, a line that starts with `$ ` is a command and the lines after it are
its output, standard error included. One marked `console measured` holds times of some machine: its
commands must succeed, its output is only rewritten. A block under `<!-- file: NAME -->` is a file,
which the commands find in their working directory, beside `traces/`.
"""

from __future__ import annotations

import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = ("README.md", "docs/plugins.md")
BLOCK = re.compile(r"^```(console(?: measured)?)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"<!-- file: (\S+) -->\n+```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """Commands of a block; a trailing backslash goes on in the next line."""
    joined = block.replace("\\\n", "\\\0")
    lines = [line.replace("\0", "\n") for line in joined.split("\n")]
    return [line[2:] for line in lines if line.startswith("$ ")]


def run(command: str, folder: Path, *, must_succeed: bool) -> str:
    """Return what a reader would see."""
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
    if must_succeed and done.returncode:
        sys.exit(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return done.stdout.rstrip("\n")


def replay(block: str, folder: Path, *, must_succeed: bool) -> str:
    """Return the block as it should read."""
    parts = []
    for command in commands(block):
        output = run(command, folder, must_succeed=must_succeed)
        parts.append(f"$ {command}\n" + (f"{output}\n" if output else ""))
    return "\n".join(parts)


def refresh(text: str, *, measured: bool) -> str:
    """Return a document with the present output in every console block, or in all but measured."""

    def present(match: re.Match[str]) -> str:
        timed = match[1] != "console"
        block = replay(match[2], folder, must_succeed=timed)
        return match[0] if timed and not measured else f"```{match[1]}\n{block}```"

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "traces").symlink_to(ROOT / "traces")
        for match in FILE.finditer(text):
            (folder / match[1]).write_text(match[2], encoding="utf-8")
        return BLOCK.sub(present, text)


def main() -> int:
    """Check or write all documents."""
    write = "--write" in sys.argv[1:]
    different = 0
    for name in DOCUMENTS:
        path = ROOT / name
        before = path.read_text(encoding="utf-8")
        after = refresh(before, measured=write)
        if before == after:
            sys.stdout.write(f"{name}: agrees with the program\n")
        elif write:
            path.write_text(after, encoding="utf-8")
            sys.stdout.write(f"{name}: written\n")
        else:
            different += 1
            diff = difflib.unified_diff(
                before.splitlines(), after.splitlines(), name, f"{name} (now)", lineterm=""
            )
            sys.stdout.write("\n".join(diff) + "\n")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
