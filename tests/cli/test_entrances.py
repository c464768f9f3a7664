"""Mutated experiments, profiles, shapes, rows, result files, traces, and command lines.

Whatever comes in at an entrance of the program is used, or refused in one clear line: no traceback,
no hang, no file that was there changed. A few hundred cases here; as a script, with a number and a
seed, `tests/cli/test_entrances.py 10000 7` tries more and counts what came of them. Commands come
from the program itself. What would load a model, measure a machine or judge a board for minutes is
cut off where it begins.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
import typing
from collections import Counter
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import typer

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "comparison")]

from made_up_pairs import measured
from made_up_runs import make_run

import specmd
from specmd.__main__ import main
from specmd.cli.program import app
from specmd.policy.registry import AXES, entries
from specmd.runs.metrics import METRICS
from specmd.runs.run import Run, read_run, write_run
from specmd.trace import save, synthetic

SECONDS = 300  # of one case, on a machine that compiles for others as well
LEGITIMATE = (0, 1, 2, 3, 4, 5)
EXPERIMENT = """traces = ["../trace.npz"]
out = "new"
bounds = false

[grid]
evict = ["lru", "lfu"]
prefetch = ["none"]
capacity = ["25%", 4]
scope = ["global", "layer"]
seed = [0, 1]
warmup = 0
"""
NUMBERS = ("0", "-1", "1", "2", "3.5", "9" * 30, "nan", "inf", "1e400", "x", "", "0x10", "1_0")
VALUES = (
    *("true", "false", "inf", "-inf", "nan", "-1", "0", "1e400", "9" * 30, "''", "[]", "{}"),
    *("[1, 2]", "'x'", "1979-05-27", "0x10", '"\\u0000"', "[[[[]]]]", '"🜲"', "[''] ", "[[1], 'a']"),
)
JSON_VALUES = (
    *(None, True, -1, 0, 1.5, 1e300, 2**70, "", "x", [], {}, [[]], {"a": 1}, "\ud83d", "../x", [1]),
)
MILD = ("0", "1", "2", "3", "0.5", "1e-30", "1e30", "1099511627776", "7", "-1")
WORDS = (
    *("", "-", "lru", "lru:", "lru:x=1", ":", "5%", "0", "-5%", "1e9%", "51", "4/layer", "9" * 40),
    *("0.6GB", "8GB total", "free", "%", "nan", "none", "global", "rtx4090", "t4", "no/such.toml"),
    *(
        "\x07",
        "é",
        "🜲",
        "'",
        "oracle",
        "random:width=0",
        "1/1",
        "0/0",
        "tpot:5%",
        "tpot",
        "misses:1",
    ),
    *(
        "profile",
        "policy",
        "commit",
        "source",
        "capacity",
        "hit_rate:1pp",
        "resident=4ms",
        "nonsense",
    ),
)
HEAVY = (  # what is cut off where it begins: loading models, measuring, minutes of simulation
    "specmd.recording:load_model",
    "specmd.measurement.jobs:run_jobs",
    "specmd.calibration:calibrate",
    "specmd.calibration.disk:measure_disk",
    "specmd.calibration.anchors:fit",
    "specmd.calibration.selftest:ask",
    "specmd.cli.selftest:apart",
    "specmd.board.predict:judge",
    "specmd.conformance.suite:check_policy",
    "specmd.report.html.files:write_figures",
    "specmd.sweep.cluster:DaskCluster",
    "specmd.advice.trials:ProcessPoolExecutor",
)


class Reached(BaseException):
    """What was asked for is understood, and would now take its time."""


class Late(BaseException):
    """A case hangs; nothing catches this."""


def _reached(*_args, **_kwargs):
    raise Reached


class _InThisProcess:
    """An executor of sweeps that needs no other process."""

    def __init__(self, *_args, **_kwargs):
        pass

    def run(self, tasks):
        for task in tasks:
            made = task.perform()
            yield from [made] if isinstance(made, Run) else made


class World:
    """A folder of inputs, each of which must be the same after a command as it was before."""

    def __init__(self, folder):
        self.folder = folder / "a" / "b" / "world"  # what goes to ../ stays in here, too
        self.folder.mkdir(parents=True)
        made = synthetic(
            num_layers=4, num_experts=8, top_k=2, num_requests=2, prompt_length=2, decode_length=3,
            lookahead_depth=1, expert_bytes=1000,
        )  # fmt: skip
        save(made, self.folder / "trace.npz")
        profile = files("specmd.hardware_profiles") / "rtx4090.toml"
        shape = sorted(files("specmd.models.shapes").iterdir(), key=str)
        rows = sorted(files("specmd.published").iterdir(), key=str)
        self.tomls = {
            "experiment": EXPERIMENT,
            "profile": profile.read_text("utf-8"),
            "shape": next(f for f in shape if f.name.endswith(".toml")).read_text("utf-8"),
            "rows": next(f for f in rows if f.name.endswith(".toml")).read_text("utf-8"),
        }
        for name, text in self.tomls.items():
            file = self.folder / "tomls" / f"{name}.toml"
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
        (self.folder / "prompts.jsonl").write_text('{"prompt": "a b"}\n', encoding="utf-8")
        (self.folder / "policy.py").write_text("x = 1\n", encoding="utf-8")
        (self.folder / "rows.csv").write_text("step,layer,expert\n0,0,1\n", encoding="utf-8")
        for name, profile_name in (("one", "t4"), ("two", "h100_sxm")):
            (self.folder / name).mkdir()
            for evict in ("lru", "lfu"):
                write_run(make_run(evict, 51, profile=profile_name), self.folder / name)
            write_run(measured([0.01, 0.011], device=name), self.folder / name)
        for evict in ("lru", "lfu"):
            run = specmd.simulate(self.folder / "trace.npz", evict, "25%", bounds=False)
            write_run(run, self.folder / "swept")
        self.runs = sorted(self.folder.glob("*/*.json"))
        self.given = self.state()

    def state(self):
        """Every file there is, with its content."""
        return {p: p.read_bytes() for p in self.folder.rglob("*") if p.is_file()}

    def tidy(self):
        """Take away what the last case added."""
        for path in self.folder.rglob("*"):
            if path.is_file() and path not in self.given:
                path.unlink()
        for path in sorted(self.folder.rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command: its flags (none: it has a place), and what a value is."""

    name: str
    flags: tuple[str, ...]
    kind: type | None
    choices: tuple[str, ...]
    required: bool


def parameters(function):
    """Read the parameters of a command from its signature."""
    for name, hint in typing.get_type_hints(function, include_extras=True).items():
        if name in ("return", "options"):
            continue
        whole, said = typing.get_args(hint)[:2]
        parts = [whole, *(part for arg in typing.get_args(whole) for part in _parts(arg))]
        choices = tuple(part for part in parts if isinstance(part, str))
        kind = next((part for part in (Path, bool, int, float, str) if part in parts), None)
        texts = (said.default, *(said.param_decls or ()))
        flags = tuple(text for text in texts if isinstance(text, str) and text.startswith("-"))
        if isinstance(said, typer.models.OptionInfo):
            flags = flags or (f"--{name.replace('_', '-')}",)
        needed = inspect.signature(function).parameters[name].default is inspect.Parameter.empty
        yield Parameter(name, flags, kind, choices, needed)


def _parts(hint):
    """Yield what a hint is made of."""
    yield hint
    for each in typing.get_args(hint):
        yield from _parts(each)


def commands():
    """Return the commands of the program, with the parameters of each."""
    return {each.name: list(parameters(each.callback)) for each in app.registered_commands}


COMMANDS = commands()
TOMLS = tuple(f"tomls/{name}.toml" for name in ("experiment", "profile", "shape"))
MADE = ("one", "two", "trace.npz", *TOMLS, "rows.csv")
PLACES = (*MADE, "prompts.jsonl", "policy.py", ".", "nothing", "nothing.toml", "/proc/none/x", "")
TARGETS = ("new", "new.npz", "new.toml", "new.csv", "new.json", "new.svg", "new.html", "/proc/no/x",
           "/dev/null/x", "one", "new/deep/x.md", "x.unknown", "")  # fmt: skip
WRITTEN = {
    *("out", "exports", "figures", "timeline", "scratch", "html", "dst", "destination", "plot"),
    *("first", "second"),
}


GOOD = {  # what a parameter of a name may well mean
    **dict.fromkeys(("trace", "traces", "training"), ("trace.npz",)),
    "results": ("one", "two"),
    "config": (TOMLS[0],),
    "profile": ("t4", "rtx4090", TOMLS[1]),
    "shape": (TOMLS[2], "olmoe_1b_7b"),
    "capacity": ("25%", "4", "1/layer", "2000"),
    "host_capacity": ("50%", "16"),
    "published": ("tomls",),
    "prompts": ("builtin", "prompts.jsonl"),
    "by": ("profile", "policy", "device", "source", "commit", "evict", "label"),
    "fail_on": ("tpot:5%", "hit_rate:1pp", "misses:0"),
    "src": ("trace.npz", "rows.csv"),
    "source": ("trace.npz", "rows.csv"),
    "dst": ("new.npz", "new.csv"),
    "first": ("new.npz",),
    "kind": ("learned_linear", "policy", "trace"),
    "model": ("tiny",),
    "throttle": ("2GB/s", "t4"),
    "shard": ("1/2",),
    "memory": ("8GB", "20kB", "16kB"),
}


def value_for(param, rng):
    """Return a value for a parameter: one it may mean, or any."""
    if param.name in GOOD and rng.random() < 0.7:
        return rng.choice(GOOD[param.name])
    if param.choices and rng.random() < 0.8:
        return rng.choice(param.choices)
    if param.kind in (int, float):
        return rng.choice(("1", "2", "3", *NUMBERS))
    if param.name in WRITTEN:
        return rng.choice(TARGETS)
    if param.kind is Path and rng.random() < 0.9:
        return rng.choice(PLACES)
    if param.name in AXES and rng.random() < 0.7:
        return rng.choice([entry.name for entry in entries() if entry.axis == param.name])
    if param.name in ("metric", "rank") and rng.random() < 0.7:
        return rng.choice(list(METRICS))
    return rng.choice((*WORDS, *PLACES[:5]))


def command_line(rng, world):
    """Make up a command line."""
    name = rng.choice(list(COMMANDS))
    argv = [name]
    for param in COMMANDS[name]:
        if not param.flags:
            for _ in range(rng.choice((1, 1, 1, 1, 2)) if rng.random() < 0.95 else 0):
                argv.append(value_for(param, rng))
    options = [param for param in COMMANDS[name] if param.flags]
    some = rng.sample(options, min(len(options), rng.choice((0, 0, 1, 1, 2, 3))))
    needed = [each for each in options if each.required and rng.random() < 0.9]
    for param in dict.fromkeys([*needed, *some]):
        argv.append(rng.choice(param.flags))
        if param.kind is not bool and rng.random() < 0.95:
            argv.append(value_for(param, rng))
    kind = rng.random()
    if kind < 0.05:
        argv.append(rng.choice(("--nonsense", "-x", "--", "--help", "--evict=lru", "--out=")))
    elif kind < 0.08:
        argv[0] = rng.choice((name[:-1], name.upper(), "", "--version", "-"))
    elif kind < 0.1:
        rng.shuffle(argv)
    if name == "sweep" and "--out" not in argv:
        argv.append("--dry-run")
    return [text for text in argv if text != "/"]


def toml_lines(rng, world):
    """Change a TOML, and use it."""
    kind = rng.choice(list(world.tomls))
    lines = world.tomls[kind].splitlines()
    mild = rng.random() < 0.5
    if mild:
        at = rng.choice([n for n, line in enumerate(lines) if re.search("[0-9]", line)])
        lines[at] = re.sub(r"[0-9][0-9.e+-]*", lambda _: rng.choice(MILD), lines[at], count=1)
    for _ in range(0 if mild else rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(lines))
        key = lines[at].partition("=")[0]
        lines[at] = rng.choice(
            (
                f"{key}= {rng.choice(VALUES)}",
                "",
                lines[at][: rng.randrange(len(lines[at]) + 1)],
                f"{lines[at]}\n{lines[at]}",
                f"{rng.choice(VALUES)} = {rng.choice(VALUES)}",
                f"[{rng.choice(('grid', 'host_link', 'stack', 'x', ''))}]",
                f"{key}= [{rng.choice(WORDS[:30])!r}]",
                f"{rng.choice(('evict', 'capacity', 'traces', 'x'))} = {rng.choice(VALUES)}",
            )
        )
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    if not mild and rng.random() < 0.1:
        at = rng.randrange(len(data))
        data = data[:at] + bytes([rng.choice((0, 255, 0xEF, 10, 34))]) + data[at + 1 :]
    mutant = world.folder / "mutant" / "mutant.toml"
    mutant.parent.mkdir(exist_ok=True)
    mutant.write_bytes(data)
    file = "mutant/mutant.toml"
    return rng.choice(
        {
            "experiment": (
                ["validate", "config", file],
                ["sweep", "--config", file, "--dry-run"],
                ["sweep", "--config", file, "--out", "new"],
            ),
            "profile": (
                ["validate", "profile", file],
                ["simulate", "trace.npz", "--profile", file, "--no-bounds"],
                [
                    "simulate",
                    "trace.npz",
                    "--profile",
                    file,
                    "-c",
                    "free",
                    "--shape",
                    "tomls/shape.toml",
                ],
                ["sweep", "trace.npz", "--profile", file, "--dry-run"],
            ),
            "shape": (
                ["simulate", "trace.npz", "--shape", file, "-c", "8GB total"],
                ["simulate", "trace.npz", "--shape", file, "--profile", "t4", "-c", "free"],
                ["sweep", "trace.npz", "--shape", file, "--dry-run"],
                ["run", "--trace", "trace.npz", "--shape", file],
            ),
            "rows": (["board", "--published", "mutant"],),
        }[kind]
    )


def result_file(rng, world):
    """Change a result file, and show, compare, validate, report or resume it."""
    resumed = rng.random() < 0.2
    source = rng.choice([path for path in world.runs if not resumed or path.parent.name == "swept"])
    text = source.read_text("utf-8")
    for _ in range(rng.choice((1, 1, 2))):
        text = (of_json if rng.random() < 0.85 else of_text)(text, rng)
    folder = world.folder / "mutant"
    folder.mkdir(exist_ok=True)
    name = source.name if rng.random() < 0.8 else rng.choice(("x.json", "\u00e9.json", ".json"))
    (folder / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    if rng.random() < 0.5:
        for each in world.runs[:3]:
            if each.name != name:
                shutil.copy(each, folder / each.name)
    if source.parent.name == "swept":
        details = shutil.copytree(world.folder / "swept" / ".details", folder / ".details")
        if rng.random() < 0.3:
            spoil_details(rng.choice(sorted(details.iterdir())), rng)
    if resumed:
        grid = ["trace.npz", "-e", "lru", "-e", "lfu", "-c", "25%", "--no-bounds"]
        again = rng.choice(([], [], ["--rerun", "failed"]))
        return ["sweep", *grid, "--out", "mutant", *again]
    file = f"mutant/{name}"
    uses = [
        ["show", "mutant"],
        ["show", file, "--format", rng.choice(("table", "md", "csv", "json", "jsonl"))],
        ["show", "mutant", "--figure", "new.svg"] if rng.random() < 0.1 else ["show", file],
        ["compare", "mutant", rng.choice(("one", "two", "mutant", "swept"))],
        ["compare", "swept", "mutant", "--all"],
        ["compare", rng.choice(("one", "two")), "mutant", "--anyway", "--all"],
        ["compare", "one", "two", "mutant", "--by", rng.choice(("profile", "policy", "device"))],
        ["compare", file, str(source), "--fail-on", "tpot:5%", "--format", "json"],
        ["simulate", "--validate", "mutant", "--profile", "t4"],
    ]
    if "report" in COMMANDS:
        uses.append(["report", "mutant", "one", "--html", "new.html"])
    return rng.choice(uses)


def spoil_details(path, rng):
    """Cut what lies beside a run file, or change an array of it."""
    if rng.random() < 0.3:
        path.write_bytes(path.read_bytes()[: rng.randrange(300)])
        return
    arrays = dict(np.load(path))
    name = rng.choice(list(arrays))
    array = arrays.pop(name)
    change = rng.randrange(5)
    if change:
        changed = (array[:-1], array[None], array.astype("U3"), np.full_like(array, 1))
        arrays[name] = changed[change - 1]
    np.savez(path, **arrays)


def of_json(text, rng):
    """Change a value somewhere in a JSON document."""
    try:
        whole = json.loads(text)
    except (ValueError, RecursionError):
        return text
    leaves = list(_leaves(whole))
    if leaves and rng.random() < 0.6:
        holder, key = rng.choice(leaves)
        holder[key] = _alike(holder[key], rng)
        return json.dumps(whole)
    inside, way = whole, []
    while isinstance(inside, dict | list) and inside:
        key = rng.choice(list(inside)) if isinstance(inside, dict) else rng.randrange(len(inside))
        way.append((inside, key))
        inside = inside[key]
        if rng.random() < 0.3:
            break
    if not way:
        return text
    holder, key = way[-1]
    kind = rng.randrange(4)
    if kind == 0:
        del holder[key]
    elif kind == 1 and isinstance(holder, dict):
        holder[rng.choice(("x", "config", "metrics", "schema", ""))] = holder.pop(key)
    else:
        holder[key] = rng.choice(JSON_VALUES)
    return json.dumps(whole)


def _leaves(whole):
    """Yield where the values of a JSON document are that hold no others."""
    if isinstance(whole, dict | list):
        for key, value in whole.items() if isinstance(whole, dict) else enumerate(whole):
            if isinstance(value, dict | list) and value:
                yield from _leaves(value)
            else:
                yield whole, key


def _alike(value, rng):
    """Return another value of the same type, or None."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((0, 1, value + 1, 10 * value, 2**40, None))
    if isinstance(value, float):
        return rng.choice((0.0, value * 1.1, 1e-300, 1e300, -value, None))
    if isinstance(value, str):
        return rng.choice(("", "x", "lfu", "t4", value + " ", "\n", "|", "\x1b[1m", None))
    return rng.choice((0, "", [], None))


def of_text(text, rng):
    """Cut, double or spoil a piece of text."""
    at = rng.randrange(len(text) + 1)
    return rng.choice(
        (
            text[:at],
            text[:at]
            + rng.choice(('"', "{", "}", ",", "\x00", "NaN", "9" * 400, "\ud83d"))
            + text[at:],
            text[:at] + text[at + rng.randrange(1, 40) :],
            text + text,
            "\ufeff" + text,
            "[" * 3000,
            text.replace("specmd.run/1", rng.choice(("specmd.run/2", "specmd.run/", "x"))),
        )
    )


def trace_file(rng, world):
    """Spoil bytes of a trace, and use it."""
    data = bytearray(world.given[world.folder / "trace.npz"])
    for _ in range(rng.choice((1, 2, 20))):
        data[rng.randrange(len(data))] = rng.choice((0, 255, rng.randrange(256)))
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    (world.folder / "mutant.npz").write_bytes(data)
    return rng.choice(
        (
            ["simulate", "mutant.npz", "-e", "lfu"],
            ["inspect", "mutant.npz"],
            ["validate", "trace", "mutant.npz"],
            ["export", "mutant.npz", "new.csv"],
            ["import", "mutant.npz", "new.npz"],
            ["sweep", "mutant.npz", "--dry-run"],
            ["simulate", "trace.npz", "--training", "mutant.npz", "-e", "static"],
            ["run", "--trace", "mutant.npz"],
        )
    )


KINDS = {"command": command_line, "toml": toml_lines, "result": result_file, "trace": trace_file}


@contextlib.contextmanager
def cut_off(folder):
    """Work in a folder; what is heavy raises Reached, sweeps stay in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HF_HUB_OFFLINE", "1")
        for place in HEAVY:
            module, _, name = place.partition(":")
            with contextlib.suppress(ModuleNotFoundError):  # an extra that is not installed
                patch.setattr(import_module(module), name, _reached)
        patch.setattr(import_module("specmd.sweep.sweep"), "LocalProcesses", _InThisProcess)
        yield


def try_one(kind, number, seed, world):
    """Make a case and see it through; returns what came of it."""
    rng = random.Random(f"{seed} {kind} {number}")
    argv = KINDS[kind](rng, world)
    before = world.state()
    out, err = io.StringIO(), io.StringIO()
    start = time.monotonic()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _alarm():
        try:
            code = int(main(argv))
        except Reached:
            code = -1
        except Late as error:
            raise AssertionError(f"{kind} {number}: {argv!r}: {error}") from error
    said, where = err.getvalue(), f"{kind} {number}: {argv!r}: "
    assert "Traceback" not in said, where + said
    assert "internal error" not in said, where + said
    assert not re.search(r"Error: .*\.py:[0-9]", said), where + said  # a run that failed by a bug
    assert code in (-1, *LEGITIMATE), f"{where}{code}: {said}"
    errors = [line for line in said.splitlines() if line.startswith("specmd: error")]
    assert len(errors) == (code in (2, 5)), f"{where}{code}: {said}"
    if code == 2:
        assert said.splitlines()[-1] == errors[0], where + said
        assert 20 < len(errors[0]) < 1200, where + said
    after = world.state()
    for path, content in before.items():
        if after.get(path) != content:
            assert _may_replace(argv, path), f"{where}{path} was changed: {said}"
    world.tidy()
    return code, time.monotonic() - start


def _may_replace(argv, path):
    """Whether a command was told to write just there, or found no result where one should be."""
    resumed = argv[0] == "sweep" and "mutant" in argv and path.parts[-2] in ("mutant", ".details")
    if resumed and path.suffix == ".json":
        return path.is_file() and read_run(path).id == path.stem
    return resumed or (argv[0] in ("import", "export", "split") and path.name in argv)


@contextlib.contextmanager
def _alarm():
    """Fail a case that hangs."""

    def late(*_):
        raise Late(f"not done after {SECONDS} s")

    old = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, old)


def test_what_mutation_found(specmd, trace_file, tmp_path):
    """Sizes beyond all bounds, and no file to rescue: each was an internal error once."""
    profile = (files("specmd.hardware_profiles") / "rtx4090.toml").read_text("utf-8")
    file = tmp_path / "endless.toml"
    head, _, tail = profile.partition("[memory_bytes]")
    file.write_text(f"{head}[memory_bytes]{re.sub('value = .*', 'value = inf', tail, count=1)}")
    for argv, message in (
        (("simulate", trace_file, "-c", "9" * 30), "is more slots than there can be experts"),
        (("validate", "profile", file), "memory_bytes must be finite"),
        (("record", "tiny", "--recover", "--out="), "is a folder: give --out a file"),
    ):
        done = specmd(*argv)
        assert (done.code, done.err.count("\n")) == (2, 1), done
        assert message in done.err


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_comes_in_breaks_anything(kind, tmp_path, request, capsys):
    seed = 20261126
    print(f"seed {seed}")  # noqa: T201
    world = World(tmp_path)
    with cut_off(world.folder):
        codes = Counter(
            try_one(kind, number, seed, world)[0]
            for number in range(request.config.getoption("--fuzz"))
        )
    assert codes[2] > 0
    assert sum(codes.values()) > codes[2]


def test_every_command_is_tried():
    rng = random.Random(1)
    tried = {command_line(rng, None)[0] for _ in range(2000)}
    assert set(COMMANDS) <= tried


if __name__ == "__main__":
    count, seed = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "0"
    total, slow, broken = Counter(), [], 0
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        world = World(Path(name))
        with cut_off(world.folder):
            for number in range(count):
                kind = list(KINDS)[number % len(KINDS)]
                try:
                    code, seconds = try_one(kind, number, seed, world)
                except AssertionError as error:
                    broken += 1
                    print(str(error)[:1500], flush=True)  # noqa: T201
                    world = World(Path(tempfile.mkdtemp(dir=name)))
                    os.chdir(world.folder)
                    continue
                total[kind, code] += 1
                slow.append((seconds, kind, number))
        os.chdir(home)
    for (kind, code), times in sorted(total.items()):
        print(f"{kind}: exit code {code if code >= 0 else '- (cut off)'}: {times}")  # noqa: T201
    print(f"slowest: {sorted(slow)[-3:]}; {broken} of {count} broken")  # noqa: T201
    sys.exit(broken > 0)
