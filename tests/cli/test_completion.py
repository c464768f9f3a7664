"""Completion as shells ask for it, and help as a manual: examples that parse, 80 columns."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from specmd.__main__ import main
from specmd.cli.manual import examples
from specmd.cli.program import app

PROGRAM = [str(Path(sys.executable).with_name("specmd"))]
NAMES = [str(command.name) for command in app.registered_commands]


@pytest.fixture
def folder(tmp_path):
    """A working folder with traces in it."""
    for name in ("a-first.npz", "a-second.npz", "other.txt", "traces/deep.npz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    return tmp_path


def ask(folder, **environment):
    done = subprocess.run(
        PROGRAM,
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return done.stdout


def asked_by_bash(line):
    """What bash says in the environment."""
    words = line.split(" ")
    return {
        "_SPECMD_COMPLETE": "complete_bash",
        "COMP_WORDS": "\n".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }


ASKED = [
    ("specmd simul", ["simulate"]),
    ("specmd simulate -e lf", ["lfru", "lfu", "lfu_da"]),
    ("specmd simulate -e lfu:re", ["lfu:resident="]),
    ("specmd simulate -p next", ["next_gate", "next_gate_renormalised"]),
    ("specmd simulate --host-evict lf", ["lfru", "lfu", "lfu_da"]),
    ("specmd simulate --scope ", ["global", "layer"]),
    ("specmd simulate a", ["a-first.npz", "a-second.npz"]),
    ("specmd simulate tr", ["traces/deep.npz"]),
    ("specmd inspect traces/", ["traces/deep.npz"]),
    ("specmd run --trace a-f", ["a-first.npz"]),
    ("specmd sweep --profile h100", ["h100_pcie", "h100_sxm"]),
    ("specmd simulate --shape olmoe", ["olmoe-1b-7b"]),
    ("specmd show --metric ttft_p", ["ttft_p50_s", "ttft_p90_s", "ttft_p99_s"]),
    ("specmd list pro", ["profiles"]),
    ("specmd validate policy sl", ["slru"]),
    ("specmd new policy mine --axis pre", ["prefetch"]),
    ("specmd simulate --profile nonsense", []),
]


@pytest.mark.parametrize(("line", "words"), ASKED)
def test_bash_is_told(folder, monkeypatch, capsys, line, words):
    """In this process: most of the time of one is its start."""
    monkeypatch.chdir(folder)
    for name, value in asked_by_bash(line).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as done:
        main([])
    assert not done.value.code
    said = capsys.readouterr()
    assert (said.out.split(), said.err) == (words, "")


def test_bash_is_told_by_a_process(folder):
    line, words = ASKED[1]
    assert ask(folder, **asked_by_bash(line)).split() == words


@pytest.mark.parametrize(("line", "words"), [ASKED[0], ASKED[1], ASKED[6]])
def test_zsh_and_fish_are_told(folder, line, words):
    told = ask(folder, _SPECMD_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=line)
    assert told.startswith("_arguments '*: :((")
    assert re.findall(r'^(?:\S.*\(\()?"([\w.-]+)"', told, re.M) == words
    told = ask(
        folder,
        _SPECMD_COMPLETE="complete_fish",
        _TYPER_COMPLETE_ARGS=line,
        _TYPER_COMPLETE_FISH_ACTION="get-args",
    )
    assert [line.split("\t")[0] for line in told.splitlines()] == words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_bash_completes_in_bash(folder):
    script = ask(folder, _SPECMD_COMPLETE="source_bash")
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"{script}\nCOMP_WORDS=(specmd simulate a); COMP_CWORD=2\n"
            f"_specmd_completion {shlex.quote(PROGRAM[0])}\n"
            'printf "%s\\n" "${COMPREPLY[@]}"; complete -p specmd',
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    *words, registered = done.stdout.splitlines()
    assert words == ["a-first.npz", "a-second.npz"]
    assert "_specmd_completion" in registered


def test_completion_never_fails(folder, monkeypatch):
    from specmd.cli import completion

    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr("specmd.policy.registry.entries", broken)
    monkeypatch.setattr("specmd.hardware.profile.list_profiles", broken)
    assert completion.policies("evict")("l") == []
    assert completion.profiles("h") == []
    assert completion.names_to_validate("l") == []


@pytest.mark.parametrize("name", NAMES)
def test_help_is_a_manual_page(specmd, monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "80")
    text = specmd(name, "--help").out
    assert max(map(len, text.splitlines())) <= 80
    usage, purpose = text.split("\n\n")[:2]
    assert usage.startswith(f"Usage: specmd {name}")
    assert len(purpose.split()) > 3
    assert "\n  Examples:\n    specmd " in text
    assert "Exit codes: 0 ok, " in text


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_command_lines(name):
    command = typer.main.get_command(app).commands[name]
    assert examples(name)
    for example in examples(name):
        program, called, *argv = shlex.split(example)
        assert (program, called) == ("specmd", name)
        command.make_context(name, argv)
