"""Execute the example notebook and compare the text that it prints with what is written in it.

    python tests/notebook.py            check; exit code 1 and a diff if something differs
    python tests/notebook.py --write    put the present output, pictures included, into it

It runs in an empty folder, so that what it writes is left nowhere.
"""

from __future__ import annotations

import difflib
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebook.ipynb"


def printed(notebook: Any) -> list[str]:
    """Return the text of all cells, with their numbers; pictures are not compared."""
    lines = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                lines.append(f"{number}: a picture")
                continue
            text = output.get("text") or output.get("data", {}).get("text/plain") or str(output)
            lines += [f"{number}: {line}" for line in text.splitlines()]
    return lines


def execute(notebook: Any) -> Any:
    """Return the notebook with the outputs of now; raises what a cell raises."""
    fresh = nbformat.from_dict(notebook)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(fresh, timeout=600, resources={"metadata": {"path": folder}})
        client.execute()
    for number, cell in enumerate(fresh.cells):
        cell["id"] = f"cell-{number}"
        cell.get("metadata", {}).pop("execution", None)
    fresh.metadata = {"kernelspec": {"display_name": "Python 3", "name": "python3"}}
    return fresh


def main() -> int:
    """Check or write the notebook."""
    before = nbformat.read(NOTEBOOK, as_version=4)
    now = execute(nbformat.read(NOTEBOOK, as_version=4))
    if "--write" in sys.argv[1:]:
        nbformat.write(now, NOTEBOOK)
        return 0
    diff = list(
        difflib.unified_diff(printed(before), printed(now), "written", "now", lineterm="", n=1)
    )
    sys.stdout.writelines(f"{line}\n" for line in diff)
    return int(bool(diff))


if __name__ == "__main__":
    sys.exit(main())
