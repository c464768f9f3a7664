"""Damaged recordings: no traceback, no hang, and no trace that says what the file does not.

`pytest tests/trace/test_import_fuzz.py --fuzz 1000` tries that many of each form, and
`python tests/trace/test_import_fuzz.py 10000 [SEED]` as many of all together, with a table.
"""

import io
import json
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from plain_readers import READERS, require_same
from test_trace_forms import ANSWER, PROMPT, SAMPLES, npy

from specmd.errors import SpecmdError
from specmd.trace import import_trace
from specmd.trace.checks import check_trace

FACTS = (
    '{"request": "b", "step": 0, "token": 4, "layer": 0, "experts": [3, 1], "phase": "prefill"}\n'
    '{"request": "b", "step": 0, "token": 5, "layer": 0, "experts": [2], "phase": "prefill"}\n'
    '{"request": "b", "step": 0, "token": 5, "layer": 1, "experts": [0, 2], "phase": "prefill"}\n'
    '{"request": "a", "step": 1, "token": 0, "layer": 0, "experts": [0, 1], "phase": "decode"}\n'
)
SINGLE = (
    "request,token,layer,expert,weight,token_id\n1,0,0,3,0.5,7\n1,0,0,1,0.25,7\n1,0,1,2,1,7\n"
    "0,9,0,0,0.5,8\n0,9,0,2,0.5,8\n0,9,1,1,0.75,8\n0,9,1,3,0.125,8\n"
)
NODES = np.zeros((3, 2, 4), np.int8)
NODES[0, 0, [1, 3]] = NODES[0, 1, 0] = NODES[1, :, 2] = NODES[2, 0, 1] = NODES[2, 1, [0, 3]] = 1


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


MAPS = npz(nodes=NODES, probs=NODES * np.linspace(0.9, 0.1, 24).reshape(3, 2, 4), stage=[0, 0, 1])
CASES = {name: text.encode() for name, text in SAMPLES.items()}
CASES |= {"npy": npy(PROMPT + ANSWER), "facts": FACTS.encode(), "single": SINGLE.encode()}
CASES |= {"maps": MAPS, "collection": npz(trace_collection=NODES[:, :, ::-1], seq=[1, 0, 1])}
VALUES = (
    *("-1", "0", "1", "3", "4", "1.5", "1e3", "99999999999999999999", "2147483648", "1_0", "0x1"),
    *("null", "true", '"x"', "[]", "{}", "[1]", "[[0, 1]]", "nan", "NaN", "Infinity", "", " "),
    *("\u0663", "+2"),
)
NAMES = (
    *("experts", "topk_ids", "selected_ids", "layers", "layer", "layer_idx", "weights", "token"),
    *("request", "step", "phase", "token_id", "routed_experts", "type", "expert", "weight", "else"),
)


def mutated(content, rng):
    """Return the content with a change or two: of bytes, of lines, or of what they say."""
    if content.startswith(b"PK") and rng.random() < 0.9:
        return of_arrays(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        content = rng.choice((of_bytes, of_lines, of_fields))(content, rng)
    return content


def of_arrays(content, rng):
    """Change a value, a type, a shape or a name of arrays."""
    arrays = dict(np.load(io.BytesIO(content)))
    name = rng.choice(list(arrays))
    array = arrays[name].copy()
    kind = rng.randrange(7)
    if kind == 0:
        array.flat[rng.randrange(array.size)] = rng.choice((-1, 0, 1, 2, 7))
    elif kind == 1:
        array = np.roll(array, 1, axis=rng.randrange(array.ndim))
    elif kind == 2:
        array = array.astype(rng.choice(("float32", "int64", "uint8", "bool", "complex64", "U3")))
    elif kind == 3:
        array = np.take(array, range(rng.randrange(3)), axis=rng.randrange(array.ndim))
    elif kind == 4:
        array = rng.choice((array.T, array[None], array.ravel(), array[:, None]))
    elif kind == 5:
        array = array.astype(float)
        array.flat[rng.randrange(array.size)] = rng.choice((np.nan, np.inf, 0.5, 1e300))
    names = ("nodes", "probs", "stage", "seq", "trace_collection", "else")
    arrays[rng.choice(names) if kind == 6 else name] = array
    return npz(**arrays)


def of_bytes(content, rng):
    at = rng.randrange(len(content) + 1)
    kind = rng.randrange(5)
    if kind == 0:
        return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + content[at + rng.randint(1, 9) :]
    if kind == 2:
        return content[:at] + rng.choice(b',:;[]{}"\n\r 019-.#\xff\x00').to_bytes() + content[at:]
    if kind == 3:
        return content[:at]
    digits = [i for i, c in enumerate(content) if c in b"0123456789"]
    at = rng.choice(digits) if digits else at
    return content[:at] + rng.choice(VALUES).encode() + content[at + 1 :]


def of_lines(content, rng):
    """Drop, double, swap, shuffle or cut off lines, or mix in those of another file."""
    lines = content.splitlines(keepends=True)
    at, other = (rng.randrange(len(lines) + 1) for _ in range(2))
    kind = rng.randrange(7)
    if kind == 0:
        lines[at : at + 1] = []
    elif kind == 1:
        lines.insert(other, rng.choice(lines or [b""]))
    elif kind == 2 and max(at, other) < len(lines):
        lines[at], lines[other] = lines[other], lines[at]
    elif kind == 3:
        rng.shuffle(lines)
    elif kind == 4:
        lines = lines[:at]
    elif kind == 5:
        lines[at:at] = rng.choice(list(CASES.values())).splitlines(keepends=True)
    else:
        lines.insert(at, rng.choice(rng.choice(list(CASES.values())).splitlines(keepends=True)))
    return b"".join(lines)


def of_fields(content, rng):
    """Swap, rename, drop or change fields of a line, or one in all lines."""
    lines = content.splitlines()
    if not lines:
        return content
    at, name, value = rng.randrange(len(lines)), rng.choice(NAMES), rng.choice(VALUES)
    kind, places = rng.randrange(4), (rng.random(), rng.random())
    every = range(len(lines)) if rng.random() < 0.2 else [at]
    for at in every:
        try:
            row = json.loads(lines[at])
        except ValueError:
            row = None
        if isinstance(row, dict) and row:
            lines[at] = json.dumps(changed(row, kind, places, name, value)).encode()
        elif b"," in lines[at]:
            cells = dict(enumerate(lines[at].decode("latin-1").split(",")))
            cells = changed(cells, kind, places, name, value).values()
            lines[at] = ",".join(map(str, cells)).encode("latin-1", "replace")
    return b"\n".join(lines) + b"\n"


def changed(fields, kind, places, name, value):
    names = list(fields)
    one, two = (names[int(place * len(names))] for place in places)
    fields = dict(fields)
    if isinstance(fields[one], dict) and fields[one]:
        fields[one] = changed(fields[one], kind, places[::-1], name, value)
    elif kind == 0:
        fields[one], fields[two] = fields[two], fields[one]
    elif kind == 1:
        fields = {name if key == one else key: held for key, held in fields.items()}
    elif kind == 2:
        del fields[one]
    else:
        fields[one] = value if isinstance(fields[one], str) else other_type(fields[one], places[1])
    return fields


def other_type(value, draw):
    kinds = (str(value), [value], None, {"a": value}, value == 0)
    if isinstance(value, int | float):
        kinds += (value + 0.5, float(value), value + 1, -value)
    if isinstance(value, list):
        kinds += (value[:-1], value[::-1], value + value, value[:1] * len(value))
    return kinds[int(draw * len(kinds))]


def read(path):
    """Import; only arrays over all experts say how many there are."""
    try:
        return import_trace(path, num_experts=4, top_k=2)
    except SpecmdError as error:
        if "experts a layer, not 4" not in str(error):
            raise
        return import_trace(path, top_k=2)


def try_one(path, content):
    """Import; return whether it was accepted. Whatever is accepted must be what the file says."""
    path.write_bytes(content)
    try:
        trace = read(path)
    except SpecmdError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return False
    check_trace(trace)
    kind = trace.header.recorder.rpartition(" ")[2]
    try:
        require_same(trace, READERS[kind](content))
    except Exception as error:
        raise AssertionError(f"{kind}: {content!r}") from error
    return True


@pytest.mark.parametrize("name", CASES)
def test_damaged_recordings(tmp_path, name, request):
    seed = 20261125
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(f"{seed} {name}")
    assert try_one(tmp_path / "recording", CASES[name])
    tries = request.config.getoption("--fuzz")
    accepted = [try_one(tmp_path / "recording", mutated(CASES[name], rng)) for _ in range(tries)]
    assert not all(accepted)


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_trace_would_be_seen(tmp_path, name):
    """What the comparison is for: a token more, and two tokens in the other order."""
    path = tmp_path / "recording"
    path.write_bytes(CASES[name])
    trace = import_trace(path, num_experts=4, top_k=2)
    kind = trace.header.recorder.rpartition(" ")[2]
    tokens = READERS[kind](CASES[name])
    require_same(trace, tokens)
    for wrong in ([*tokens, tokens[-1]], tokens[:-1], [{**tokens[0], "layers": {}}, *tokens[1:]]):
        with pytest.raises(AssertionError):
            require_same(trace, wrong)
    if trace.weights is not None:
        layers = {layer: [(e, w + 1) for e, w in row] for layer, row in tokens[0]["layers"].items()}
        with pytest.raises(AssertionError):
            require_same(trace, [{**tokens[0], "layers": layers}, *tokens[1:]])


if __name__ == "__main__":
    rng, total = random.Random(sys.argv[2] if len(sys.argv) > 2 else "0"), Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(int(sys.argv[1])):
            name = list(CASES)[number % len(CASES)]
            total[name, try_one(Path(folder) / "recording", mutated(CASES[name], rng))] += 1
    for name in CASES:
        yes, no = total[name, True], total[name, False]
        print(f"{name}: {yes} accepted and as a plain reading says, {no} refused")  # noqa: T201
