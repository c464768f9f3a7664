"""A plug-in to start from: a policy that works, and the test that goes with it.

On the axes that most plug-ins are for there is a short one in ordinary Python; on every other, and
where a policy to start from is named, it is that policy's own file under the new name.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from specmd.conformance.plugin_texts import COMPILED, PLAIN, TEST
from specmd.errors import SpecmdError
from specmd.files import write_text
from specmd.policy.registry import AXES, BUILT_IN, Axis, choose, entries
from specmd.runs.options import RunConfig


def write_plugin(
    name: str, axis: Axis, like: str | None, folder: Path, *, compiled: bool = False
) -> list[Path]:
    """Write NAME.py and test_NAME.py into a folder.

    Args:
        name: of the policy, and of its file.
        axis: what it decides.
        like: the policy to start from; None for the simplest there is.
        folder: which must exist.
        compiled: write the form that is compiled, in place of ordinary Python.

    Raises:
        SpecmdError: the name is taken or is none, or one of the files exists.

    """
    if axis not in AXES:
        raise SpecmdError(f"unknown axis '{axis}': known: {', '.join(AXES)}")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise SpecmdError(f"'{name}' cannot be a policy's name: use a-z, 0-9 and _, a letter first")
    if any((entry.axis, entry.name) == (axis, name) for entry in entries()):
        raise SpecmdError(f"{axis} policy '{name}' exists already: choose another name")
    policy, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in (policy, test):
        if path.exists():
            raise SpecmdError(f"{path} exists and is left as it is: choose another name or folder")
    title = "".join(word.capitalize() for word in name.split("_") if word)
    if compiled and (like is not None or axis not in COMPILED):
        whose = f"of {like}" if like is not None else f"on axis {axis}"
        raise SpecmdError(f"there is no compiled form to write {whose}: leave --compiled out")
    texts = COMPILED if compiled else PLAIN
    if like is None and axis in texts:
        text = texts[axis].format(name=name, title=title)
    else:
        text = _renamed(axis, like or RunConfig.model_fields[axis].default, name, title)
    write_text(policy, text)
    write_text(test, TEST.format(name=name, axis=axis))
    return [policy, test]


def _renamed(axis: Axis, like: str, name: str, title: str) -> str:
    """Return the file of a built-in policy with another policy's name in it."""
    entry = choose(axis, like).entry
    if entry.origin != BUILT_IN:
        raise SpecmdError(f"{like} is from {entry.origin}: copy that file, or name a built-in one")
    text = Path(inspect.getfile(entry.cls)).read_text(encoding="utf-8")
    text = re.sub(rf'(@policy\(\s*)"{entry.name}"', rf'\1"{name}"', text)
    text = re.sub(r'^"""[^:\n]+:', f'"""{title}:', text)
    return re.sub(rf"\b{entry.cls.__name__}\b", title, text)
