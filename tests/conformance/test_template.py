"""`specmd new policy`: what it writes works as it is, on every axis."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from specmd.conformance.plugin_texts import COMPILED, PLAIN
from specmd.conformance.suite import check_policy
from specmd.conformance.template import write_plugin
from specmd.errors import SpecmdError
from specmd.policy.registry import AXES, Choice, _registry, add_plugin, entries


@pytest.fixture(autouse=True)
def no_trace_left():
    """Forget what a test registers."""
    before = dict(_registry())
    yield
    _registry().clear()
    _registry().update(before)


FORMS = [*((axis, False) for axis in AXES), *((axis, True) for axis in COMPILED)]


def called(axis, compiled):
    return f"fresh_{axis}" + "_compiled" * compiled


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """One of every form in one folder: what one process compiled of a file, the next finds."""
    folder = tmp_path_factory.mktemp("fresh")
    for axis, compiled in FORMS:
        write_plugin(called(axis, compiled), axis, None, folder, compiled=compiled)
    return folder


@pytest.mark.parametrize(("axis", "compiled"), FORMS)
def test_a_new_policy_keeps_to_the_rules(written, axis, compiled):
    name = called(axis, compiled)
    (entry,) = add_plugin(written / f"{name}.py")
    assert (entry.axis, entry.name) == (axis, name)
    assert entry.compiled == compiled or axis not in PLAIN
    assert entry.summary.startswith("".join(map(str.capitalize, name.split("_"))) + ": ")
    assert [found for found in check_policy(entry) if not found.passed] == []


@pytest.mark.parametrize(
    ("axis", "like"),
    [(entry.axis, entry.name) for entry in entries() if entry.origin == "built-in"],
)
def test_any_built_in_policy_can_be_started_from(tmp_path, axis, like):
    policy, _ = write_plugin("fresh_one", axis, like, tmp_path)
    (entry,) = add_plugin(policy)
    (model,) = [each for each in entries() if (each.axis, each.name) == (axis, like)]
    assert Choice.usual(entry).values == Choice.usual(model).values
    assert (entry.needs, entry.compiled) == (model.needs, model.compiled)


def test_their_own_tests_pass(written):
    tests = [f"test_{called(*form)}.py" for form in FORMS]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=written,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout
    assert f"{2 * len(FORMS)} passed" in done.stdout


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "test_mine.py").write_text("precious")
    with pytest.raises(SpecmdError, match=r"test_mine\.py exists"):
        write_plugin("mine", "evict", None, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "precious"


@pytest.mark.parametrize(
    ("name", "axis", "like", "said"),
    [
        ("lru", "evict", None, "exists already"),
        ("Mine", "evict", None, "cannot be a policy's name"),
        ("../mine", "evict", None, "cannot be a policy's name"),
        ("mine", "evict", "lruu", "did you mean"),
        ("mine", "evictt", None, "unknown axis"),
    ],
)
def test_wrong_names_are_refused(tmp_path, name, axis, like, said):
    with pytest.raises(SpecmdError, match=re.escape(said)):
        write_plugin(name, axis, like, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_where_there_is_no_compiled_form_that_is_said(tmp_path):
    for axis, like in (("allocate", None), ("evict", "lru")):
        with pytest.raises(SpecmdError, match="there is no compiled form to write"):
            write_plugin("mine", axis, like, tmp_path, compiled=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    from specmd.__main__ import main

    monkeypatch.chdir(tmp_path)
    assert main(["new", "policy", "mine", "--axis", "prefetch"]) == 0
    assert "--plugin mine.py -p mine" in capsys.readouterr().err
    assert Path("mine.py").is_file()
    assert main(["new", "policy", "mine"]) == 2
