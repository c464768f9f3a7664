"""What takes too long, or crashes, ends its process and says in which line of a plug-in."""

import subprocess
import sys
import textwrap

import pytest

from specmd.policy.deadline import noting, read_note

PLUGIN = {
    "loops": "def slow():\n    while True: pass\n",
    "crashes": "import ctypes\n\ndef slow():\n    ctypes.string_at(0)\n",
    "loops in compiled code": (
        "import numba\n\n@numba.njit(nogil=True)\ndef forever(x):\n    while x[0] == 0:\n"
        "        x[1] += 1\n\ndef slow():\n    import numpy\n    forever(numpy.zeros(2))\n"
    ),
    "loops and keeps the lock": (
        "import re\n\ndef slow():\n    re.match('(a*)*$', 'a' * 60 + 'b')\n"
    ),
}
SAID = {
    "loops": (True, "did not return within 2 s (mine.py:2, in slow)"),
    "crashes": (False, "Segmentation fault (mine.py:4, in slow)"),
    "loops in compiled code": (True, "did not return within 2 s (mine.py:10, in slow)"),
    "loops and keeps the lock": (True, "did not return within 2 s (mine.py:4, in slow)"),
}


@pytest.mark.parametrize("how", PLUGIN)
def test_a_process_is_ended_and_its_note_names_the_line(tmp_path, how):
    (tmp_path / "mine.py").write_text(PLUGIN[how])
    code = """
        from pathlib import Path
        from specmd.policy.deadline import noting
        import mine
        with noting(Path("note"), 2.0):
            mine.slow()
    """
    if "compiled" in how:  # beforehand, so that it is not compiling that takes too long
        code = code.replace(
            "import mine\n", "import mine, numpy\n        mine.forever(numpy.ones(2))\n"
        )
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, check=False, timeout=240
    )
    assert done.returncode != 0
    assert read_note(tmp_path / "note") == SAID[how]


def test_nothing_is_left_of_what_ends_in_time(tmp_path):
    with noting(tmp_path / "note", 60.0):
        pass
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="bad"), noting(tmp_path / "note", 60.0):
        raise ValueError("bad")
    assert read_note(tmp_path / "note") is None


def test_a_note_of_something_else_is_none(tmp_path):
    (tmp_path / "note").write_text("Timeout, perhaps")
    assert read_note(tmp_path / "note") is None
