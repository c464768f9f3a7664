"""Plug-ins are bounds-checked until they are cleared, and a crash of one names it."""

import subprocess
import sys
import textwrap

import pytest

from specmd.core import clearance
from specmd.core.clearance import clear, foreign_files, is_cleared
from specmd.core.event import World
from specmd.core.instant_link import InstantLink
from specmd.core.kernel import Kernel
from specmd.policy import registry
from specmd.policy.faults import told
from specmd.runs.resolve import grid
from specmd.simulation.replay import replay
from specmd.simulation.simulate import try_config
from specmd.trace import save, synthetic

OUT_OF_BOUNDS = '''
"""Counts uses, in an array that is too short."""
from typing import NamedTuple

import numpy as np

from specmd.policy import IntArray, policy


@policy("out_of_bounds", source="test", compiled=True)
class OutOfBounds(NamedTuple):
    uses: IntArray

    @classmethod
    def create(cls, world):
        return cls(np.zeros(8, np.int64))

    def on_insert(self, key, pool, event):
        self.uses[key] += 1

    def rank(self, key, event):
        return 0.0
'''


@pytest.fixture
def add(tmp_path, monkeypatch):
    """Register plug-ins from source, beside a kernel cache of their own."""
    monkeypatch.setenv("SPECMD_CACHE_DIR", str(tmp_path / "kernels"))

    def from_source(source, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(source))
        return registry.add_plugin(path)[0].cls

    return from_source


def is_checked(cls):
    chosen = next(entry for entry in registry.entries("evict") if entry.cls is cls)
    header = synthetic(num_layers=2, num_experts=4, top_k=2).header
    world = World.of(header, [4])
    kernel = Kernel(world, registry.Choice.usual(chosen), InstantLink.create(8))._run
    kernel = getattr(kernel, "__globals__", {}).get("kernel", kernel)
    return kernel.targetoptions["boundscheck"]


def test_a_plugin_is_checked_until_this_very_source_is_cleared(add, tmp_path, monkeypatch):
    cls = add(OUT_OF_BOUNDS)
    assert not is_cleared(cls)
    assert is_checked(cls)
    clear(cls)
    assert is_cleared(cls)
    assert not is_checked(cls)
    (tmp_path / "mine.py").write_text(OUT_OF_BOUNDS + "# edited\n")
    assert not is_cleared(cls)
    (tmp_path / "mine.py").write_text(OUT_OF_BOUNDS)
    assert is_cleared(cls)
    monkeypatch.setattr(clearance, "_digest_of_core", lambda: b"another core")
    assert not is_cleared(cls)


def test_what_is_built_in_runs_unchecked():
    for entry in registry.entries():
        assert foreign_files(entry.cls) == []
        assert is_cleared(entry.cls)
    assert not is_checked(registry.choose("evict", "lru").entry.cls)


def test_a_plugin_is_foreign_even_if_all_it_says_is_how_it_is_made(add):
    cls = add(
        '''
        """LRU."""
        from specmd.policies.evict.lru import LRU
        from specmd.policy import policy

        @policy("mine", source="test", compiled=True)
        class Mine(LRU):
            @classmethod
            def create(cls, world):
                return cls(*LRU.create(world))
        '''
    )
    assert [file.endswith("mine.py") for file in foreign_files(cls)] == [True]
    assert not is_cleared(cls)


def test_what_a_plugin_calls_in_other_files_is_part_of_its_source(add, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    other = tmp_path / "beside_the_plugin.py"
    other.write_text("import numba\n\n@numba.njit\ndef twice(x):\n    return 2 * x\n")
    source = OUT_OF_BOUNDS.replace("return 0.0", "return twice(key)")
    cls = add(source.replace("import numpy", "from beside_the_plugin import twice\nimport numpy"))
    assert [file.rpartition("/")[2] for file in foreign_files(cls)] == [other.name, "mine.py"]


def test_a_write_out_of_bounds_is_an_error_and_names_the_file(add):
    add(OUT_OF_BOUNDS)
    trace = synthetic(num_requests=1, prompt_length=2, decode_length=20, seed=1)
    (config,) = grid(trace, evict="out_of_bounds")
    # Compiled for sequential mode, in a third of the time; the hooks are the same.
    alone = config.model_copy(update={"sequential": True})
    with pytest.raises(IndexError, match="out of bounds") as raised:
        replay(trace, alone, compiled=True)
    assert "(mine.py, compiled: `specmd validate policy` finds the line)" in told(raised.value)
    run = try_config(trace, config, bounds=False, interpreted=True)
    assert (run.status, run.reason[:11]) == ("failed", "IndexError:")
    assert "(mine.py:19, in on_insert)" in run.reason


def test_a_crash_names_the_plugin(tmp_path):
    path = tmp_path / "crashing.py"
    path.write_text(
        OUT_OF_BOUNDS.replace("(NamedTuple)", "")
        .replace(", compiled=True", "")
        .replace("return cls(np.zeros(8, np.int64))", "return cls()")
        .replace("self.uses[key] += 1", "import ctypes; ctypes.string_at(0)")
    )
    code = (
        "import specmd; from specmd.policy import registry; from specmd.trace import synthetic\n"
        f"registry.add_plugin({str(path)!r})\n"
        "specmd.simulate(synthetic(seed=1), evict='out_of_bounds', bounds=False)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode not in (0, 1)
    assert f'File "{path}", line 1 in compiled_code_of_OutOfBounds' in done.stderr


def test_the_command_line_says_what_runs_checked_until_it_is_cleared(add, tmp_path, capsys):
    from specmd.__main__ import main

    cls = add(OUT_OF_BOUNDS)
    trace = save(synthetic(num_requests=1, decode_length=4), tmp_path / "t.npz")
    argv = ["sweep", str(trace), "--dry-run", "-e", "lru", "-e", "out_of_bounds"]
    argv += ["--plugin", str(tmp_path / "mine.py")]
    assert main(argv) == 0
    said = capsys.readouterr().err.splitlines()[0]
    assert said.startswith("specmd: out_of_bounds runs bounds-checked")
    assert f"`specmd validate policy {tmp_path / 'mine.py'}` makes it quick" in said
    clear(cls)
    assert main(argv) == 0
    assert "bounds-checked" not in capsys.readouterr().err


def test_only_what_passes_is_cleared(add, tmp_path, capsys):
    from specmd.__main__ import main

    cls = add(OUT_OF_BOUNDS)
    assert main(["validate", "policy", str(tmp_path / "mine.py")]) == 1
    assert "IndexError" in capsys.readouterr().out
    assert not is_cleared(cls)
    sound = OUT_OF_BOUNDS.replace("np.zeros(8,", "np.zeros(world.num_keys,")
    registry._registry.cache_clear()
    cls = add(
        sound.replace("(NamedTuple)", "")
        .replace(", compiled=True", "")
        .replace("self.uses[key] += 1", "pass")
        .replace("return cls(np.zeros(world.num_keys, np.int64))", "return cls()"),
        "sound.py",
    )
    assert main(["validate", "policy", str(tmp_path / "sound.py")]) == 0
    assert is_cleared(cls)
