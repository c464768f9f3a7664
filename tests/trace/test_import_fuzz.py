"""Damaged recordings: no traceback, no hang, and no trace that says what the file does not.

`python tests/trace/test_import_fuzz.py 10000` tries as many as one likes.
"""

import base64
import csv
import io
import json
import random
import struct
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from test_trace_forms import ANSWER, PROMPT, SAMPLES, npy

from specmd.errors import SpecmdError
from specmd.trace import import_trace
from specmd.trace.checks import check_trace

CASES = {name: text.encode() for name, text in SAMPLES.items()} | {"npy": npy(PROMPT + ANSWER)}
VALUES = (
    *("-1", "0", "1", "3", "4", "1.5", "1e3", "99999999999999999999", "2147483648", "1_0", "0x1"),
    *("null", "true", '"x"', "[]", "{}", "[1]", "[[0, 1]]", "nan", "NaN", "Infinity", "", " "),
    *("\u0663", "+2"),
)


def mutated(content, rng):
    """Return the content with a change or two."""
    for _ in range(rng.choice((1, 1, 2))):
        kind = rng.randrange(7)
        at = rng.randrange(len(content) + 1) if content else 0
        lines = content.splitlines(keepends=True)
        if kind == 0:
            content = content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]
        elif kind == 1:
            content = content[:at] + content[at + rng.randint(1, 9) :]
        elif kind == 2:
            content = (
                content[:at] + rng.choice(b',:;[]{}"\n\r 019-.#\xff\x00').to_bytes() + content[at:]
            )
        elif kind == 3 and lines:
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            content = b"".join(lines)
        elif kind == 4 and lines:
            rng.shuffle(lines) if rng.random() < 0.3 else lines.pop(rng.randrange(len(lines)))
            content = b"".join(lines)
        elif kind == 5:
            content = content[:at]
        else:
            digits = [i for i, c in enumerate(content) if c in b"0123456789"]
            if digits:
                at = rng.choice(digits)
                content = content[:at] + rng.choice(VALUES).encode() + content[at + 1 :]
    return content


def try_one(path, content):
    """Import; return whether it was accepted. Whatever is accepted must be what the file says."""
    path.write_bytes(content)
    try:
        trace = import_trace(path, num_experts=4, top_k=2)
    except SpecmdError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return False
    check_trace(trace)
    token, layer, rank = np.nonzero(trace.expert_ids < trace.header.num_experts)
    found = Counter(zip(layer.tolist(), trace.expert_ids[token, layer, rank].tolist(), strict=True))
    kind = trace.header.recorder.rpartition(" ")[2]
    assert found == renumbered(PICKS[kind](content)), (kind, content)
    return True


def renumbered(picks):
    number = {layer: i for i, layer in enumerate(sorted({layer for layer, _ in picks}))}
    return Counter((number[layer], expert) for layer, expert in picks)


# What a file says, read one value at a time, by the layer and the expert of every choice.


def json_lines(content):
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return [json.loads(line) for line in text.split("\n") if line and not line.isspace()]


def picks_of_rows(content):
    picks = []
    for row in json_lines(content):
        if row.get("type") == "meta":
            continue
        names = ("experts", "expert_ids", "topk_ids", "selected_ids", "layers")
        chosen = next(row[name] for name in names if row.get(name) is not None)
        layer = row.get("layer", row.get("layer_idx"))
        for number, experts in enumerate(chosen) if layer is None else [(layer, chosen)]:
            picks += [(number, expert) for expert in experts]
    return picks


def picks_of_ik_llama(content):
    routes = [row for row in json_lines(content) if row["type"] == "route"]
    return [(row["layer"], chosen["expert"]) for row in routes for chosen in row["selected"]]


def cells(content):
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    kept = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    return list(csv.reader(kept))


def picks_of_csv(content):
    names, *rows = [[cell.strip().lower() for cell in row] for row in cells(content)]
    picks = []
    for row in rows:
        fields = dict(zip(names, row, strict=True))
        experts = fields.get("experts", fields.get("expert")).replace(";", " ").split()
        picks += [(int(fields["layer"]), int(expert)) for expert in experts]
    return picks


def picks_of_llama_cpp(content):
    rows = cells(content)
    return [(int(layer), int(expert)) for layer, expert in rows if layer.strip().lower() != "layer"]


def picks_of_array(ids):
    ids = np.asarray(ids)
    kept = [
        i for i in range(ids.shape[1]) if ids.shape[2] == 1 or (ids[:, i] != ids[:, i, :1]).any()
    ]
    return [(i, int(expert)) for i in kept or range(ids.shape[1]) for expert in ids[:, i].flat]


def picks_of_response(content):
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except ValueError:
        found = json_lines(content)
    arrays = []
    for response in found if isinstance(found, list) else [found]:
        first = True
        shared = response.get("prompt_routed_experts")
        for choice in response.get("choices") or response.get("outputs") or [response]:
            inner = next(
                (choice[k] for k in ("meta_info", "sgl_ext") if isinstance(choice.get(k), dict)),
                choice,
            )
            own = choice.get("prompt_routed_experts", shared)
            if own is not None and first:
                arrays.append(decoded(own, choice))
            if inner.get("routed_experts") is not None:
                arrays.append(decoded(inner["routed_experts"], inner))
            first = False
    return picks_of_array(np.concatenate([each for each in arrays if len(each)]))


def decoded(given, counts):
    if not isinstance(given, str):
        return np.array(given)
    data = base64.b64decode(given)
    if data.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(data))
    ids = struct.unpack(f"<{len(data) // 4}i", data)
    return np.array(ids).reshape(counts["prompt_tokens"] + counts["completion_tokens"] - 1, -1, 2)


PICKS = {
    "jsonl": picks_of_rows,
    "ik-llama": picks_of_ik_llama,
    "csv": picks_of_csv,
    "big-moe": picks_of_csv,
    "llama-cpp": picks_of_llama_cpp,
    "response": picks_of_response,
    "npy": lambda content: picks_of_array(np.load(io.BytesIO(content))),
}


@pytest.mark.parametrize("name", CASES)
def test_damaged_recordings(tmp_path, name):
    seed = 20261125
    print(f"seed {seed}")  # noqa: T201
    rng = random.Random(f"{seed} {name}")
    assert try_one(tmp_path / "recording", CASES[name])
    accepted = [try_one(tmp_path / "recording", mutated(CASES[name], rng)) for _ in range(40)]
    assert not all(accepted)


if __name__ == "__main__":
    rng, total = random.Random(sys.argv[2] if len(sys.argv) > 2 else "0"), Counter()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(int(sys.argv[1])):
            name = list(CASES)[number % len(CASES)]
            total[name, try_one(Path(folder) / "recording", mutated(CASES[name], rng))] += 1
    for name in CASES:
        yes, no = total[name, True], total[name, False]
        print(f"{name}: {yes} accepted, {no} refused")  # noqa: T201
