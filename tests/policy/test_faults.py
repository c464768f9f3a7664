"""What is said of a mistake in somebody's policy: what it is, the file, and the line."""

import pytest
from numba.core.errors import TypingError

from specmd.errors import SpecmdError
from specmd.policy import registry
from specmd.policy.faults import told
from specmd.runs.resolve import grid
from specmd.simulation.simulate import try_config
from specmd.trace import synthetic

FRONT = "Failed in nopython mode pipeline (step: nopython frontend)\n" * 3
BACK = "\n\nDuring: typing of call at /here/specmd/core/serve.py (344)\n\nFile"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            FRONT + "Unknown attribute 'weigth' of type Mine(array(float64, 1d, C))\n\n"
            'File "../mine.py", line 26:\n    def rank(self, key, event):\n' + BACK,
            "Unknown attribute 'weigth' of type Mine(array(float64, 1d, C)) (mine.py:26)",
        ),
        (
            FRONT + "NameError: name 'foo' is not defined\nDuring: Pass nopython_type_inference\n"
            "During: resolving callee type: type(CPUDispatcher(<function Mine.rank at 0x7f>))\n",
            "NameError: name 'foo' is not defined (in Mine.rank)",
        ),
        (
            FRONT + "No implementation of function Function(<built-in function add>) found for "
            "signature:\n \n >>> add(Literal[str](a), float64)\n \nThere are 20 candidate "
            'implementations:\n  - Of which 18 did not match\n\nFile "../mine.py", line 7:\n',
            "No implementation of function Function(<built-in function add>) found for signature: "
            ">>> add(Literal[str](a), float64) (mine.py:7)",
        ),
        ("Unsupported. Raised from /a/mine.py (26)", "Unsupported. Raised from /a/mine.py (26)"),
        (FRONT, "(while compiling)"),
    ],
)
def test_pages_of_numba_are_cut_to_the_line(text, said):
    assert said in told(TypingError(text))
    assert len(told(TypingError(text))) < 400


def test_hooks_of_the_wrong_form_and_what_they_call_are_told_by_file(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from specmd.policy import candidates, policy\n\n\n"
        "def least(keys, *, least=0):\n    return min(keys, default=least)\n\n\n"
        '@policy("wrong", source="test")\nclass Wrong:\n    @classmethod\n'
        "    def create(cls, world):\n        return cls()\n\n"
        "    def victim(self, cache):\n        return 0\n\n\n"
        '@policy("right", source="test")\nclass Right(Wrong):\n'
        "    def victim(self, incoming, pool, cache, event):\n"
        "        return least(candidates(cache, pool))\n"
    )
    registry.add_plugin(tmp_path / "mine.py")
    trace = synthetic(num_requests=1, decode_length=9, seed=1)
    wrong, right = grid(trace, evict=["wrong", "right"])
    run = try_config(trace, wrong, bounds=False)
    assert run.reason.startswith("TypeError: Wrong.victim() takes 2 positional arguments but 5")
    assert run.reason.endswith("(mine.py)")
    assert try_config(trace, right, bounds=False).status == "ok"


def test_an_endless_message_is_cut():
    assert len(told(ValueError("x" * 10_000))) < 400


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\ny = x +\n", "SyntaxError: invalid syntax ("),
        ("x = 1\n\nx.nonsense()\n", "AttributeError: 'int' object has no attribute 'nonsense' ("),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module' ("),
    ],
)
def test_a_plugin_that_cannot_be_imported_is_told_with_its_line(tmp_path, source, said):
    path = tmp_path / "mine.py"
    path.write_text(source)
    line = len(source.splitlines())
    with pytest.raises(SpecmdError) as raised:
        registry.add_plugin(path)
    assert said in str(raised.value)
    assert f"(mine.py:{line}" in str(raised.value)
    assert str(path) in str(raised.value)


PACKAGE = '''
"""First in, first out."""
from specmd.policies.evict.fifo import FIFO
from specmd.policy import policy

@policy("{name}", source="test")
class Tiny(FIFO):
    pass

@policy("{name}_other", source="test")
class Other(FIFO):
    pass
'''


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Put a package where Python finds it, with an entry point."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(name, points_at, source=None):
        (tmp_path / f"{name}.py").write_text(source or PACKAGE.format(name=name))
        folder = tmp_path / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[specmd.policies]\n{name} = {points_at}\n")
        registry._registry.cache_clear()
        return {entry.name for entry in registry.entries("evict")}

    yield written
    registry._registry.cache_clear()


def test_an_entry_point_names_a_module_or_a_class(install, caplog):
    assert {"tiny_module", "tiny_module_other"} <= install("tiny_module", "tiny_module")
    found = install("tiny_class", "tiny_class:Tiny")
    assert "tiny_class" in found
    assert "tiny_class_other" not in found
    assert caplog.text == ""
    assert registry.choose("evict", "tiny_class").entry.origin == "entry point tiny_class:Tiny"


def test_an_entry_point_that_is_no_policy_is_told_and_breaks_nothing(install, caplog):
    assert "lru" in install("tiny_number", "tiny_number:x", "x = 1\n")
    assert "tiny_number:x cannot be used: it declares no policy" in caplog.text
    assert "lru" in install("tiny_broken", "tiny_broken", "\n1 / 0\n")
    assert "ZeroDivisionError: division by zero (" in caplog.text


def test_an_installed_policy_is_validated_by_name(install, capsys, caplog):
    from specmd.__main__ import main

    source = PACKAGE.replace("(FIFO)", "").replace("    pass", "    create = 0")
    install("tiny_valid", "tiny_valid:Tiny")
    assert main(["validate", "policy", "tiny_valid:"]) == 0
    assert "ok   evict tiny_valid: half of the keys fit" in capsys.readouterr().out
    install("tiny_invalid", "tiny_invalid", source.format(name="tiny_invalid"))
    assert "has no `create`" in caplog.text
    assert main(["validate", "policy", "tiny_vald"]) == 2
    assert "did you mean tiny_valid" in capsys.readouterr().err
