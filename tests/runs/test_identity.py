"""The identity of a run covers all that the run executes, and nothing else."""

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import specmd
from specmd.runs import identity
from specmd.runs.identity import CODE, NOT_COUNTED, file_digest, policy_digest, source_digest

HERE = Path(specmd.__file__).parent

SIMULATED = """
    import specmd
    from specmd.trace import synthetic
    trace, other = (
        synthetic(num_layers=2, num_experts=4, top_k=1, num_requests=2, decode_length=4,
                  lookahead_depth=1, expert_bytes=1000, seed=seed)
        for seed in (0, 1)
    )
    specmd.simulate(trace, "static", 3, prefetch="next_gate", schedule="guard", profile="rtx4090",
                    scope="layer", training=other, interpreted=True)
"""
MEASURED = """
    from specmd.measurement.jobs import LiveJob, run_job
    from specmd.measurement.settings import LiveSettings
    from specmd.measurement.sources import PromptSource
    from specmd.models.generation import Generation
    from specmd.models.prompts import as_prompts
    from specmd.runs.resolve import grid
    source = PromptSource("tiny", Generation(tuple(as_prompts(["a b"])), max_new_tokens=2))
    (config,) = grid(source.header(), prefetch="next_gate")
    run_job(LiveJob(source, config, LiveSettings(link="cpu", warmup_runs=0, repetitions=1)))
"""


@pytest.mark.parametrize(("kind", "made"), [("simulated", SIMULATED), ("measured", MEASURED)])
def test_every_module_that_a_run_loads_is_in_its_identity(kind, made):
    code = textwrap.dedent(made) + "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    loaded = [name for name in done.stdout.split() if name.partition(".")[0] == "specmd"]
    assert len(loaded) > 50
    forgotten = [
        name
        for name in loaded
        if not name.startswith("specmd.policies")  # one by one, see below
        and name.split(".")[1:2] != []
        and name.split(".")[1] not in CODE[kind]
        and name not in NOT_COUNTED
    ]
    assert forgotten == []


def copied(folder):
    return shutil.copytree(HERE, folder / "specmd", ignore=shutil.ignore_patterns("__pycache__"))


def edited(root, place, edit):
    """Digests of a simulated and of a measured run once a file is edited."""
    file = root / place
    before = file.read_text(encoding="utf-8")
    after = edit(before)
    assert after != before
    file.write_text(after, encoding="utf-8")
    identity.file_digest.cache_clear()
    found = [source_digest.__wrapped__(kind, root) for kind in CODE]
    file.write_text(before, encoding="utf-8")
    return found


def test_an_edit_of_what_is_executed_is_another_run_and_no_other_edit_is(tmp_path):
    root = copied(tmp_path)
    identity.file_digest.cache_clear()
    before = [source_digest.__wrapped__(kind, root) for kind in CODE]
    assert before == [source_digest(kind) for kind in CODE], "where it lies does not matter"

    def changed(place, edit=lambda text: text + "\nanother = 1\n"):
        return [old != new for old, new in zip(before, edited(root, place, edit), strict=True)]

    of_both = [
        *("core/serve.py", "core/prefetch.py", "core/order/lists.py", "policy/schedule.py"),
        *("simulation/replay.py", "simulation/timed_link.py", "simulation/costs.py"),
        *("runs/metrics.py", "runs/resolve.py", "trace/trace.py", "trace/slicing.py"),
        *("hardware/profile.py", "hardware/shape.py"),
    ]
    for place in of_both:
        assert changed(place) == [True, True], place
    of_live = ("live/service.py", "live/links/host.py", "measurement/measuring.py", "models/moe.py")
    for place in of_live:
        assert changed(place) == [False, True], place
    for place in ("report/table.py", "cli/simulate.py", "sweep/executor.py", "errors.py"):
        assert changed(place) == [False, False], place

    def comment(text):
        return "# A comment.\n" + text.replace('"""', '"""Reworded: ', 1) + "\n# Another.\n"

    assert changed("core/serve.py", comment) == [False, False]
    identity.file_digest.cache_clear()


def test_a_moved_file_is_another_run(tmp_path):
    root = copied(tmp_path)
    (root / "core" / "serve.py").rename(root / "core" / "served.py")
    assert source_digest.__wrapped__("simulated", root) != source_digest("simulated")


@pytest.mark.parametrize(
    ("edit", "same"),
    [
        ("def f(x):\n    '''Other words.'''\n    return x + 1  # why\n", True),
        ("def f(x):\n    return (x\n        + 1)\n", True),
        ("def f(x):\n    return x + 2\n", False),
        ("def f(y):\n    return y + 1\n", False),
        ("def f(x):\n    'Words.'; 'not a docstring'\n    return x + 1\n", False),
    ],
)
def test_code_counts_by_what_it_does(tmp_path, edit, same):
    plain, other = tmp_path / "a.py", tmp_path / "b.py"
    plain.write_text("def f(x):\n    return x + 1\n")
    other.write_text(edit)
    assert (file_digest(plain) == file_digest(other)) == same


def test_a_policy_counts_with_the_modules_beside_it_that_it_imports(tmp_path, monkeypatch):
    digests = []
    for number, (weight, other) in enumerate([(1, 1), (1, 2), (2, 2)]):
        folder = tmp_path / str(number)
        package = folder / "made_up"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package / "mine.py").write_text("from .aid import w\nclass Mine:\n    weight = w\n")
        (package / "aid.py").write_text("from made_up.deep import w\n")
        (package / "deep.py").write_text(f"w = {weight}\n")
        (package / "unused.py").write_text(f"x = {other}\n")
        monkeypatch.syspath_prepend(folder)
        for name in [name for name in sys.modules if name.startswith("made_up")]:
            monkeypatch.delitem(sys.modules, name)
        from made_up.mine import Mine

        digests.append(policy_digest(Mine))
    assert digests[0] == digests[1] != digests[2]
