"""The program as a whole: speed of its help, exit codes, one line for every failure."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from specmd.cli.program import app

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "pandas",
    "matplotlib",
    "transformers",
    "numba",
    "numpy",
    "rich",
    "pydantic",
    "dask",
    "distributed",
}
HEAVY |= {"altair", "vl_convert", "jinja2"}


def process(*argv, **options):
    return subprocess.run(
        [sys.executable, "-m", "specmd", *argv],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom specmd.__main__ import main\nmain(['--help'])\n"
        "sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not HEAVY & set(done.stderr.split())
    assert "Commands:" in done.stdout


def test_list_policies_imports_neither_torch_nor_numba():
    code = (
        "import sys\nfrom specmd.__main__ import main\nmain(['list', 'policies'])\n"
        "sys.stderr.write(' '.join({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert not {"torch", "numba", "pandas", "matplotlib"} & set(done.stderr.split())


def test_version(specmd):
    from specmd import __version__

    assert specmd("--version").out == f"specmd {__version__}\n"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["simulat"], "Did you mean 'simulate'"),
        (["simulate"], "name a trace"),
        (["simulate", "x.npz", "--nonsense"], "--nonsense"),
        (["import", "a"], "DST"),
        (["import", "a", "b"], "a: no such file"),
        (["list", "horses"], "horses"),
        (["inspect", "nowhere.npz"], "nowhere.npz: no such file"),
        (["inspect", "."], "is a directory"),
        (["simulate", "nowhere.npz"], "nowhere.npz: no such file"),
        (["sweep"], "no trace"),
        (["sweep", "x.npz"], "--out DIR"),
        (["sweep", "x.npz", "--out", "y", "--shard", "3/2"], "--shard 3/2"),
        (["sweep", "x.npz", "--out", "y", "--jobs", "0"], "--jobs"),
        (["sweep", "--config", "nowhere.toml"], "nowhere.toml"),
        (["validate", "trace"], "name the file"),
        (["validate", "trace", "nowhere.npz"], "nowhere.npz"),
        (["validate", "profile", "nowhere.toml"], "nowhere.toml"),
        (["validate", "policy", "nowhere.py"], "nowhere.py"),
        (["validate", "policy", "--schema"], "no schema"),
        (["list", "traces", "nowhere"], "nowhere"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(specmd, tmp_path, monkeypatch, argv, said):
    monkeypatch.chdir(tmp_path)
    done = specmd(*argv)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("specmd: error: ")
    assert done.err.count("\n") == 1
    assert said in done.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-e", "lruu"], "did you mean"),
        (["-e", "least_stale:ordr=cycle"], "order"),
        (["-e", "least_stale:order=sideways"], "order=sideways is not valid"),
        (["-e", "slru:protected"], "write protected=VALUE"),
        (["-p", "next_gat"], "next_gate"),
        (["-c", "lots"], "capacity 'lots' is not understood"),
        (["-c", "0"], "less than one slot"),
        (["-c", "0.5"], "not a whole number of slots"),
        (["--scope", "galaxy"], "scope"),
        (["--admission", "maybe"], "admission"),
        (["--reset", "often"], "reset"),
        (["--warmup", "-1"], "warmup"),
        (["--tokens", "0"], "tokens"),
        (["--tokens", "many"], "--tokens"),
        (["--profile", "rtx4900"], "rtx4090"),
        (["--shape", "olmo"], "olmoe-1b-7b"),
        (["--metric", "hitrate"], "hit_rate"),
        (["--export", "runs.xlsx"], "runs.xlsx"),
        (["--figure", "runs.bmp"], "runs.bmp"),
        (["--plugin", "nowhere.py"], "nowhere.py"),
        (["--training", "nowhere.npz"], "nowhere.npz"),
        (["--format", "yaml"], "yaml"),
        (["--sequential", "--profile", "t4"], "sequential"),
    ],
)
def test_bad_options_are_one_line_and_exit_code_2(specmd, trace_file, options, said):
    done = specmd("simulate", trace_file, *options)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("specmd: error: ")
    assert done.err.count("\n") == 1
    assert said in done.err


def test_damaged_traces_are_one_line(specmd, trace_file, tmp_path):
    whole = trace_file.read_bytes()
    for name, content in (
        ("empty.npz", b""),
        ("short.npz", whole[: len(whole) // 2]),
        ("garbage.npz", b"\x00\xff" * 500),
        ("text.npz", b"hello"),
    ):
        path = tmp_path / name
        path.write_bytes(content)
        for command in ("inspect", "simulate"):
            done = specmd(command, path)
            assert done.code == 2
            assert name in done.err
            assert done.err.count("\n") == 1


def test_a_foreign_npz_says_how_to_import_it(specmd, tmp_path):
    import numpy as np

    np.savez(tmp_path / "foreign.npz", topk=np.zeros((3, 2, 1), np.uint8))
    done = specmd("simulate", tmp_path / "foreign.npz")
    assert done.code == 2
    assert "specmd import" in done.err


def test_an_unexpected_error_is_one_line_with_the_way_to_the_traceback(specmd, monkeypatch):
    def broken():
        raise ZeroDivisionError("two lines\nof text")

    monkeypatch.setattr("specmd.hardware.profile.list_profiles", broken)
    monkeypatch.delenv("SPECMD_DEBUG", raising=False)
    done = specmd("list", "profiles")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert "ZeroDivisionError: two lines of text" in done.err
    assert "SPECMD_DEBUG=1" in done.err
    monkeypatch.setenv("SPECMD_DEBUG", "1")
    assert "Traceback" in specmd("list", "profiles").err


def test_ctrl_c_is_130(specmd, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr("specmd.hardware.profile.list_profiles", interrupted)
    done = specmd("list", "profiles")
    assert done.code == 130
    assert "Traceback" not in done.err


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX pipe")
def test_a_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "specmd", "list", "metrics"],
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("argv", [["list", "metrics"], ["list", "metrics", "--format", "json"], []])
def test_a_full_disk_behind_stdout_is_one_line(argv):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "specmd", *argv],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 5
    assert done.stderr == "specmd: error: standard output: No space left on device\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell")
def test_closed_streams_are_one_line_or_none():
    def shell(redirection):
        return subprocess.run(
            ["sh", "-c", f'"$0" -m specmd list metrics {redirection}', sys.executable],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    closed = shell(">&-")
    assert closed.returncode == 2
    assert closed.stderr.startswith("specmd: error: standard output is closed")
    assert closed.stderr.count("\n") == 1
    deaf = shell("2>&-")
    assert (deaf.returncode, deaf.stderr) == (0, "")
    assert "hit_rate" in deaf.stdout


def test_a_stdout_that_knows_ascii_only_gets_ascii(trace_file):
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"}
    done = process("simulate", "--help", env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    done = process("inspect", trace_file.rename(trace_file.with_name("é·.npz")), env=environment)
    trace_file.with_name("é·.npz").rename(trace_file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Locality" in done.stdout
    assert "?.npz" in done.stdout


def test_the_bare_program_prints_its_help(specmd):
    bare, asked = specmd(), specmd("--help")
    assert (bare.code, bare.err) == (0, "")
    assert bare.out == asked.out


def test_help_mentions_every_option_of_the_interface(specmd):
    simulate = specmd("simulate", "--help").out
    for option in (
        *("-e, --evict", "-c, --capacity", "-p, --prefetch", "--schedule", "--miss", "--route"),
        *("--allocate", "--profile", "--shape", "--scope", "--admission", "--reset"),
        *("--sequential", "--warmup", "--tokens", "--seed", "--no-bounds", "--format"),
        *("--training", "--plugin", "--metric", "--export", "--figure"),
    ):
        assert f"  {option}" in simulate
    sweep = specmd("sweep", "--help").out
    for option in ("--out", "--config", "--jobs", "--shard", "--dry-run", "--rerun", "--evict"):
        assert option in sweep
    imported = specmd("import", "--help").out
    for option in ("--kind", "--experts", "--expert-bytes", "--model", "--phase"):
        assert option in imported
    for command in app.registered_commands:
        assert f"  {command.name} " in specmd("--help").out


def test_readme_agrees_with_the_help(monkeypatch, specmd):
    monkeypatch.setenv("COLUMNS", "100")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^\$ specmd ((?:\w+ )?--help)\n(.*?)^```$", text, re.M | re.S)
    assert blocks
    for command, written in blocks:
        assert written.split() == specmd(*command.split()).out.split()


def test_readme_names_only_commands_and_options_that_exist(specmd):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"^```console\n.*?^```$", "", text, flags=re.M | re.S)
    known = {command.name for command in app.registered_commands}
    assert set(re.findall(r"`specmd (\w+)", text)) <= known
    helps = " ".join(specmd(name, "--help").out for name in known) + specmd("--help").out
    for option in set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)):
        assert option in helps, option


def test_env_as_json(specmd):
    facts = json.loads(specmd("env", "--format", "json").out)
    assert {"specmd", "python", "system", "cpu", "cores", "numpy", "kernel cache"} <= set(facts)
    block = specmd("env").out.splitlines()
    assert (block[0], block[-1]) == ("```text", "```")
    assert block[1].startswith("specmd ")
    assert str(Path.home()) not in "\n".join(block)


def test_console_script_runs_from_elsewhere(tmp_path):
    done = process("list", "shapes", "--format", "json", cwd=tmp_path)
    assert done.returncode == 0
    assert "olmoe-1b-7b" in {row["name"] for row in json.loads(done.stdout)}
