"""The package of docs/plugins.md, as it is written: built, installed, listed, run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from specmd.trace import save, synthetic

ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "specmd_heaviest.py")


def test_two_files_make_an_installed_policy(tmp_path):
    pytest.importorskip("pip")
    text = (ROOT / "docs" / "plugins.md").read_text("utf-8")
    found = dict(re.findall(r"^<!-- file: (\S+) -->\n+```\w+\n(.*?)^```$", text, re.M | re.S))
    for name in FILES:
        (tmp_path / name).write_text(found[name])
    site = tmp_path / "site"
    environment = os.environ | {"PYTHONPATH": str(site)}

    def call(*argv):
        done = subprocess.run(
            [sys.executable, "-m", *map(str, argv)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    call("pip", "install", "-qq", "--no-index", "--no-deps", "--no-build-isolation",
         "--target", site, ".")  # fmt: skip
    (row,) = [
        row
        for row in json.loads(call("specmd", "list", "policies", "--format", "json"))
        if row["name"] == "heaviest"
    ]
    assert (row["axis"], row["origin"]) == ("evict", "entry point specmd_heaviest")
    assert (row["needs"], row["compiled"], row["lossless"]) == (["weights"], True, True)
    trace = save(synthetic(num_requests=1, decode_length=20, seed=1), tmp_path / "trace.npz")
    options = ("-e", "heaviest", "-c", "25%", "--no-bounds", "--format", "json")
    (run,) = json.loads(call("specmd", "simulate", trace, *options))
    assert run["status"] == "ok"
    assert run["policy_metrics"]["evict heaviest"]["most"] > 0
