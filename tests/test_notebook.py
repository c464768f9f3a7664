"""The example notebook prints what is written in it."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("notebook.py")


def test_the_notebook_agrees_with_the_program():
    for module in ("nbclient", "nbformat", "ipykernel", "pyarrow"):
        pytest.importorskip(module, reason="the notebook's packages are not installed")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", SCRIPT],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert done.stdout == ""
