"""What a recording says, read one value at a time and in plain loops: to compare importers with.

A reading is a list of tokens in the order of execution, each a dict of ``request`` (anything that
sorts), ``step``, ``phase``, ``token_id`` and ``layers``: {number in the file: [(expert, weight)]}.
"""

import base64
import csv
import io
import json
import struct

import numpy as np

from specmd.trace import DECODE, PREFILL

EXPERTS = ("experts", "expert_ids", "topk_ids", "selected_ids", "layers")
WEIGHTS = ("weights", "topk_weights", "gate_weights")
PHASES = {"prefill": PREFILL, "0": PREFILL, "decode": DECODE, "1": DECODE}


def lines_of(content):
    text = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    return [line for line in text.split("\n") if line and not line.isspace()]


def tokens_of(rows):
    """Put rows of a token and a layer together; `step` of a row counts passes, or is None."""
    tokens, last = {}, {}
    for number, row in enumerate(rows):
        group = (row.get("request"), row.get("step"))
        if row.get("token") is not None:
            key = (group, row["token"])
        else:
            key, layer = last.get(group, (None, None))
            key = (group, None, number) if layer is None or row["layer"] <= layer else key
            last[group] = (key, row["layer"])
        facts = {name: row.get(name) for name in ("request", "step", "phase", "token_id")}
        if facts["phase"] is not None:
            facts["phase"] = PHASES[str(facts["phase"]).strip().lower()]
        token = tokens.setdefault(key, facts | {"layers": {}})
        assert all(token[name] == value for name, value in facts.items())
        assert row["layer"] not in token["layers"]
        weights = row.get("weights") or [None] * len(row["experts"])
        token["layers"][row["layer"]] = list(zip(row["experts"], weights, strict=True))
    found = list(tokens.values())
    for token in found:
        token["phase"] = DECODE if token["phase"] is None else token["phase"]
    if found[0]["step"] is None:
        found.sort(key=lambda token: token["request"] or 0)
        numbered(found)
    return found


def numbered(tokens):
    """Number the steps: a prefill is one, every decoded token is one."""
    step, before = -1, None
    for token in tokens:
        part = (token["request"], token["phase"])
        step += token["phase"] == DECODE or part != before
        token["step"], before = step, part


def read_jsonl(content):
    rows, names, first = [], {}, None
    for number, line in enumerate(lines_of(content)):
        row = json.loads(line)
        if row.get("type") == "meta":
            continue
        first = first or row
        given = {
            meaning: next((row[name] for name in spelled if row.get(name) is not None), None)
            for meaning, spelled in (
                ("experts", EXPERTS),
                ("weights", WEIGHTS),
                ("layer", ("layer", "layer_idx")),
                ("request", ("request", "req_id")),
                ("token", ("token", "token_idx", "tok")),
                *((name, (name,)) for name in ("step", "phase", "token_id")),
            )
        }
        if isinstance(given["request"], str):
            given["request"] = names.setdefault(given["request"], len(names))
        if given["layer"] is not None:
            rows.append(given)
            continue
        if given["token"] is None:
            given["token"] = number
        weights = given["weights"] or [None] * len(given["experts"])
        for layer, (experts, gates) in enumerate(zip(given["experts"], weights, strict=True)):
            rows.append(given | {"layer": layer, "experts": experts, "weights": gates})
    if None not in (first.get("topk_ids"), first.get("token_idx")) and first.get("step") is None:
        step, seen = 0, set()
        for row in rows:
            if row["token"] == 0:
                if row["layer"] in seen:
                    step, seen = step + 1, set()
                seen.add(row["layer"])
            row["step"] = step
        wide = {row["step"] for row in rows if row["token"] > 0}
        for row in rows:
            row["phase"] = "prefill" if row["step"] in wide else "decode"
    return tokens_of(rows)


def read_ik_llama(content):
    rows = []
    for row in map(json.loads, lines_of(content)):
        if row["type"] == "route":
            rows.append(
                {
                    "request": row["sequence"],
                    "token": row["batch_index"],
                    "layer": row["layer"],
                    "token_id": row["input_token_id"],
                    "experts": [each["expert"] for each in row["selected"]],
                    "weights": [each["weight"] for each in row["selected"]],
                }
            )
    return tokens_of(rows)


def cells_of(content):
    kept = [line for line in lines_of(content) if not line.startswith("#")]
    return list(csv.reader(kept))


def merged(rows):
    """Make one row of those that follow each other in a token and layer."""
    found, before = [], None
    for row in rows:
        where = [row.get(name) for name in ("layer", "request", "step", "token")]
        if where == before:
            found[-1]["experts"] += row["experts"]
            if row.get("weights") is not None:
                found[-1]["weights"] += row["weights"]
        else:
            found.append(row)
        before = where
    return found


def read_csv(content):
    names, *lines = [[cell.strip().lower() for cell in row] for row in cells_of(content)]
    rows = []
    for line in lines:
        fields = dict(zip(names, line, strict=True))
        shown = "expert" if "expert" in fields else "experts"
        weights = fields.get("weights", fields.get("weight"))
        row = {
            "layer": int(fields["layer"]),
            "experts": [int(each) for each in fields[shown].replace(";", " ").split()],
            "weights": weights and [float(each) for each in weights.replace(";", " ").split()],
            "phase": fields.get("phase"),
        }
        for name in ("request", "step", "token", "token_id"):
            row[name] = int(fields[name]) if name in fields else None
        rows.append(row)
    return tokens_of(merged(rows) if "expert" in names else rows)


def read_big_moe(content):
    rows, passes, before = [], 0, None
    for line in cells_of(content)[1:]:
        turn, phase, step, layer, _, expert = (int(cell) for cell in line[:6])
        now = (turn, phase, step if phase == 1 else None)
        if before is not None and (now != before[0] or layer < before[1]):
            passes += 1
        before = (now, layer)
        rows.append(
            {
                "request": turn,
                "step": passes,
                "token": step,
                "layer": layer,
                "phase": str(phase),
                "experts": [expert],
                "weights": [float(line[6])],
            }
        )
    return tokens_of(merged(rows))


def read_llama_cpp(content):
    rows = [row for row in cells_of(content) if row[0].strip().lower() != "layer"]
    runs = []
    for layer, expert in ((int(layer), int(expert)) for layer, expert in rows):
        if not runs or runs[-1][0] != layer:
            runs.append((layer, []))
        runs[-1][1].append(expert)
    top_k = min(len(experts) for _, experts in runs)
    tokens, step, before = [], -1, None
    for layer, experts in runs:
        places = [experts[at : at + top_k] for at in range(0, len(experts), top_k)]
        if before is None or layer <= before:
            step += 1
            phase = PREFILL if len(places) > 1 else DECODE
            fresh = {"request": 0, "step": step, "phase": phase, "token_id": None}
            current = [fresh | {"layers": {}} for _ in places]
            tokens += current
        for token, place in zip(current[len(current) - len(places) :], places, strict=True):
            token["layers"][layer] = [(expert, None) for expert in place]
        before = layer
    return tokens


def read_npy(content):
    ids = np.load(io.BytesIO(content), allow_pickle=False)
    return tokens_of_arrays([(0, DECODE, ids.tolist())])


def read_response(content):
    try:
        found = json.loads(content.decode("utf-8-sig"))
    except ValueError:
        found = [json.loads(line) for line in lines_of(content)]
    parts, request = [], -1
    for response in found if isinstance(found, list) else [found]:
        shared, computed = response.get("prompt_routed_experts"), False
        for choice in response.get("choices") or response.get("outputs") or [response]:
            request += 1
            inner = next(
                (
                    choice[key]
                    for key in ("meta_info", "sgl_ext")
                    if isinstance(choice.get(key), dict)
                ),
                choice,
            )
            prompt, answer = counted(response, choice)
            own = choice.get("prompt_routed_experts")
            before = shared if own is None else own
            given = inner.get("routed_experts")
            ids = None if given is None else decoded(given, prompt, answer)
            if before is not None:
                if own is not None or not computed:
                    parts.append((request, PREFILL, decoded(before, None, None)))
                ids = ids or []
            else:
                if not computed:
                    parts.append((request, PREFILL, ids[:prompt]))
                ids = ids[prompt:]
            parts.append((request, DECODE, ids))
            computed = True
    return tokens_of_arrays(parts)


def counted(response, choice):
    found = []
    for listed, name in (("prompt_token_ids", "prompt_tokens"), ("token_ids", "completion_tokens")):
        values = [len(at[listed]) for at in (choice, response) if isinstance(at.get(listed), list)]
        for at in (choice, response):
            for place in (at.get("meta_info"), at.get("usage")):
                if isinstance(place, dict) and place.get(name) is not None:
                    values.append(place[name])
        found.append(values[0] if values else None)
    return found


def decoded(given, prompt, answer):
    if not isinstance(given, str):
        return given
    data = base64.b64decode(given)
    if data.startswith(b"\x93NUMPY"):
        return np.load(io.BytesIO(data), allow_pickle=False).tolist()
    ids = struct.unpack(f"<{len(data) // 4}i", data)
    return np.array(ids).reshape(prompt + answer - 1, -1, 2).tolist()


def tokens_of_arrays(parts):
    """Read parts (request, phase, ids of tokens, layers, k); a layer of one id alone is dense."""
    every = [token for _, _, ids in parts for token in ids]
    layers, top_k = len(every[0]), len(every[0][0])
    moe = [at for at in range(layers) if any(len(set(token[at])) > 1 for token in every)]
    kept = list(range(layers)) if top_k == 1 or not moe else moe
    tokens = []
    for request, phase, ids in parts:
        for token in ids:
            rows = {at: [(expert, None) for expert in token[at]] for at in kept}
            tokens.append({"request": request, "phase": phase, "token_id": None, "layers": rows})
    numbered(tokens)
    return tokens


def read_multi_hot(content):
    arrays = dict(np.load(io.BytesIO(content), allow_pickle=False))
    used = next(arrays[name] for name in ("nodes", "trace_collection") if name in arrays)
    probs, tokens = arrays.get("probs"), []
    for token, layers in enumerate(used):
        rows = {}
        for layer, ones in enumerate(layers):
            chosen = [expert for expert, one in enumerate(ones) if one == 1]
            row = [(e, None if probs is None else float(probs[token, layer, e])) for e in chosen]
            rows[layer] = sorted(row, key=lambda pair: -(pair[1] or 0))
        rows = {layer: row for layer, row in rows.items() if row}
        phase = int(arrays["stage"][token]) if "stage" in arrays else DECODE
        request = int(arrays["seq"][token]) if "seq" in arrays else None
        facts = {"request": request, "phase": phase, "token_id": None}
        if rows:
            tokens.append(facts | {"layers": rows})
    tokens.sort(key=lambda token: token["request"] or 0)
    numbered(tokens)
    return tokens


READERS = {
    "jsonl": read_jsonl,
    "ik-llama": read_ik_llama,
    "csv": read_csv,
    "big-moe": read_big_moe,
    "llama-cpp": read_llama_cpp,
    "response": read_response,
    "npy": read_npy,
    "multi-hot": read_multi_hot,
}


def require_same(trace, tokens):
    """Check that a trace is what a plain reading says."""
    layers = sorted({layer for token in tokens for layer in token["layers"]})
    requests = sorted({token["request"] or 0 for token in tokens})
    steps = list(dict.fromkeys(token["step"] for token in tokens))
    assert trace.header.num_layers == len(layers)
    assert trace.request.tolist() == [requests.index(token["request"] or 0) for token in tokens]
    assert trace.step.tolist() == [steps.index(token["step"]) for token in tokens]
    assert trace.phase.tolist() == [token["phase"] for token in tokens]
    if trace.token_ids is not None:
        assert trace.token_ids.tolist() == [token["token_id"] for token in tokens]
    else:
        assert {token["token_id"] for token in tokens} == {None}
    for at, token in enumerate(tokens):
        for place, layer in enumerate(layers):
            row = token["layers"].get(layer, [])
            chosen = trace.expert_ids[at, place]
            chosen = chosen[chosen < trace.header.num_experts].tolist()
            assert chosen == [expert for expert, _ in row]
            for rank, (_, weight) in enumerate(row):
                assert (weight is None) == (trace.weights is None)
                assert weight is None or trace.weights[at, place, rank] == np.float32(weight)
