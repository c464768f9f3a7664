"""Many policies of an axis in one: they take turns at being asked, event by event.

Compiling is nearly all of what a kernel costs in a test, and most of a kernel is the core. A relay
is a plug-in made of policies that are there, each with a state of its own: one kernel shows of all
of them that compiled code decides what interpreted code does.
"""

from specmd.core.clearance import clear
from specmd.policy import registry

# Hooks of an axis, which one policy answers for all.
ASKED = {
    "route": {"route": "event, rows, core"},
    "miss": {"prepare": "event, core, missing", "answer": "key, event, rows, core"},
}


def register_relay(axis, spelled, folder):
    """Write a policy made of others as a plug-in, register it, and return its name."""
    chosen = [registry.choose(axis, each) for each in spelled]
    name = f"{axis}_relay"
    path = folder / f"{name}.py"
    path.write_text("\n".join(written(axis, name, chosen)))
    (entry,) = registry.add_plugin(path)
    clear(entry.cls)  # compiled as what it is made of: unchecked
    return name


def written(axis, name, chosen):
    """The lines of a relay."""
    needs = sorted({need for each in chosen for need in each.needs})
    said = f"needs={needs}, lossy=True"
    if any(each.bits for each in chosen):
        assert {each.bits for each in chosen} == {0, 4}  # a run has copies of one width
        said += ', bits="bits"'
    if any(each.renormalises for each in chosen):
        said += ", renormalises=True"
    yield "from typing import Any, NamedTuple"
    yield "from specmd.core.specialise import embed"
    yield "from specmd.policy import policy"
    of = {choice.cls: f"C{i}" for i, choice in enumerate(chosen)}  # forms of a class share its code
    for cls, short in of.items():
        yield f"from {cls.__module__} import {cls.__name__} as {short}"
        for hook in ASKED[axis]:
            if hasattr(cls, hook):
                yield f"{hook}_{short} = embed({short}.{hook}, {{}})"
    yield f'@policy("{name}", axis="{axis}", source="the tests", compiled=True, {said})'
    yield "class Relay(NamedTuple):"
    yield '    """Takes turns."""'
    yield from (f"    c{i}: Any" for i in range(len(chosen)))
    yield "    @classmethod"
    yield f"    def create(cls, world{', *, bits: int = 4' if 'bits' in said else ''}):"
    yield '        """Make them all."""'
    made = (f"{of[each.cls]}.create(world, **{each.values!r})" for each in chosen)
    yield f"        return cls({', '.join(made)})"
    for hook, arguments in ASKED[axis].items():
        yield f"    def {hook}(self, {arguments}):"
        yield f"        turn = event.clock % {len(chosen)}"
        for i, choice in enumerate(chosen):
            if hasattr(choice.cls, hook):
                yield f"        if turn == {i}:"
                yield f"            return {hook}_{of[choice.cls]}(self.c{i}, {arguments})"
        yield f"        return {'0' if hook == 'answer' else 'None'}"
