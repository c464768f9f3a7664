"""Importers: the published recordings, every form of text, and errors by line."""

import json
from pathlib import Path

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.trace import DECODE, PREFILL, import_trace, load, save
from specmd.trace.checks import check_trace

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "traces"


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"real trace {name} is not on this machine")
    return path


@pytest.fixture
def write(tmp_path):
    def write_text(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write_text


@pytest.fixture
def write_npz(tmp_path):
    def write_arrays(**arrays):
        path = tmp_path / "source.npz"
        np.savez(path, **arrays)
        return path

    return write_arrays


def error_of(path, **options):
    with pytest.raises(SpecmdError) as caught:
        import_trace(path, **{"num_experts": 8, **options})
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message.replace(str(path), "")


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


# Published recordings


def test_olmoe_decode():
    path = shared("olmoe_1b_7b_decode.npz")
    trace = import_trace(path, num_experts=64, expert_bytes=12_582_912, model="OLMoE-1B-7B-0924")
    with np.load(path, allow_pickle=False) as source:
        np.testing.assert_array_equal(trace.expert_ids, source["expert_ids"])
        np.testing.assert_array_equal(trace.weights, source["router_weights"])
        np.testing.assert_array_equal(trace.token_ids, source["token_id"])
        np.testing.assert_array_equal(trace.prompt_lengths, source["prompt_length"])
        lengths = source["seq_stop"] - source["seq_start"]
    np.testing.assert_array_equal(np.bincount(trace.request), lengths)
    assert (trace.num_tokens, trace.num_steps, trace.num_requests) == (51112, 51112, 400)
    assert (np.diff(trace.request) >= 0).all()
    assert (trace.phase == DECODE).all()
    header = trace.header
    assert (header.num_layers, header.num_experts, header.top_k) == (16, 64, 8)
    assert (header.kind, header.model, header.expert_bytes) == (
        "imported",
        "OLMoE-1B-7B-0924",
        12_582_912,
    )
    assert header.source == "olmoe_1b_7b_decode.npz"


def test_olmoe_as_prefill():
    trace = import_trace(shared("olmoe_1b_7b_decode.npz"), num_experts=64, phase="prefill")
    assert (trace.num_steps, trace.num_requests) == (400, 400)
    np.testing.assert_array_equal(trace.step, trace.request)
    assert (trace.phase == PREFILL).all()


def test_olmoe_with_too_few_experts():
    path = shared("olmoe_1b_7b_decode.npz")
    assert "expert id 60 at token 0, layer 1, but a layer has 60" in error_of(path, num_experts=60)


def test_gptoss_decode():
    trace = import_trace(shared("gptoss_20b_decode.npz"), num_experts=32)
    assert trace.expert_ids.shape == (215438, 24, 4)
    assert trace.weights.dtype == np.float16
    assert trace.num_requests == 703


def test_flame_batch_and_prefill():
    path = shared("flame_moe_290m_batch64.npz")
    decode = import_trace(path, num_experts=64)
    with np.load(path, allow_pickle=False) as source:
        ids, wide = source["decode_ids"], source["prefill_ids"]
    assert (decode.num_steps, decode.num_requests) == (10, 64)
    np.testing.assert_array_equal(decode.expert_ids.reshape(ids.shape), ids)
    np.testing.assert_array_equal(decode.request.reshape(10, 64), np.tile(np.arange(64), (10, 1)))
    prefill = import_trace(path, num_experts=64, phase="prefill")
    assert (prefill.num_steps, prefill.num_tokens) == (1, 2048)
    np.testing.assert_array_equal(prefill.expert_ids, wide)
    assert (prefill.phase == PREFILL).all()


def test_switch_logits():
    trace = import_trace(shared("switch_base_32_logits.npz"), num_experts=32)
    assert trace.expert_ids.shape == (135, 6, 1)
    assert trace.logits.shape == (135, 6, 32)
    chosen = np.take_along_axis(trace.logits, trace.expert_ids.astype(np.int64), axis=2)
    np.testing.assert_array_equal(chosen[:, :, 0], trace.logits.max(axis=2))
    assert trace.token_ids is not None


# Arrays


def test_npz_requests_may_skip_and_permute_tokens(write_npz):
    ids = np.arange(6)[:, None, None].astype(np.int8)
    path = write_npz(expert_ids=ids, seq_start=[4, 1], seq_stop=[6, 3], token_id=np.arange(6) * 10)
    trace = import_trace(path, num_experts=8)
    assert trace.expert_ids[:, 0, 0].tolist() == [4, 5, 1, 2]
    assert trace.token_ids.tolist() == [40, 50, 10, 20]
    assert trace.request.tolist() == [0, 0, 1, 1]


def test_npz_top_1_and_requests_by_name(write_npz):
    path = write_npz(selected=[[0, 1], [2, 3], [4, 5]], seq=[7, 3, 7], weights=np.ones((3, 2)))
    trace = import_trace(path, num_experts=8)
    assert trace.expert_ids[:, :, 0].tolist() == [[2, 3], [0, 1], [4, 5]]
    assert trace.request.tolist() == [0, 1, 1]
    assert trace.weights.shape == (3, 2, 1)


def test_npz_batch_of_steps(write_npz):
    ids = np.arange(6).reshape(3, 2, 1, 1)  # three steps of two requests
    path = write_npz(decode_ids=ids, decode_weights=ids / 8, prefill_ids=[[[7]], [[6]]])
    trace = import_trace(path, num_experts=8)
    assert trace.expert_ids[:, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert trace.step.tolist() == [0, 0, 1, 1, 2, 2]
    assert trace.request.tolist() == [0, 1, 0, 1, 0, 1]
    assert trace.weights[:, 0, 0].tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.625]
    wide = import_trace(path, num_experts=8, phase="prefill")
    assert wide.expert_ids[:, 0, 0].tolist() == [7, 6]
    assert wide.step.tolist() == [0, 0]


ONE = {"expert_ids": [[[0, 1]], [[2, 3]]]}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"hidden": [1.0]}, "not a form that is known. Known are topk-npz"),
        ({"expert_ids": [[[0.5, 1]]]}, "must be integers"),
        ({"expert_ids": [1, 2]}, "(tokens, layers[, k]) is needed"),
        ({"expert_ids": np.zeros((0, 2, 2), dtype=int)}, "(tokens, layers[, k]) is needed"),
        ({"expert_ids": np.zeros((2, 0, 2), dtype=int)}, "none of them 0"),
        ({"expert_ids": [[[0, -1]]]}, "expert id -1 at token 0, layer 0"),
        ({"expert_ids": [[[0, 1]], [[3, 8]]]}, "expert id 8 at token 1, layer 0"),
        ({"expert_ids": [[[2, 2]]]}, "lists an expert twice (2 2)"),
        (ONE | {"seq_start": [0]}, "one of them is missing"),
        (ONE | {"seq_start": [0], "seq_stop": [3]}, "sequence 0 runs from 0 to 3"),
        (ONE | {"seq_start": [0, 1], "seq_stop": [1, 1]}, "sequence 1 runs from 1 to 1"),
        (ONE | {"seq_start": [0, 0], "seq_stop": [2, 2]}, "overlap"),
        (ONE | {"seq_start": [0], "seq_stop": [1, 2]}, "do not match"),
        (ONE | {"seq": [0, 0, 0]}, "seq has shape (3,)"),
        (ONE | {"prompt_length": [1, 2]}, "prompt_length has shape (2,)"),
        (ONE | {"prompt_length": [1.5]}, "prompt_lengths must be integers"),
        (ONE | {"probs": [[[0.5, 0.5]]]}, "2 tokens"),
        (ONE | {"probs": [[[0.5]], [[0.5]]]}, "weights has shape"),
        (ONE | {"probs": [[["a", "b"]], [["a", "b"]]]}, "must be numbers"),
        (ONE | {"probs": np.full((2, 1, 2), np.nan)}, "weight nan"),
        (ONE | {"probs": np.full((2, 1, 2), 1e300)}, "weight inf"),
        (ONE | {"token_id": [1]}, "2 tokens"),
        (ONE | {"token_id": [1, 2**40]}, "fit into 32 bits"),
        ({"prefill_ids": [[[0, 1]]]}, "try --phase prefill"),
        ({"decode_ids": [[[0, 1]]]}, "(steps, batch, layers, k)"),
        ({"decode_ids": [[[[0, 1]]]], "decode_weights": [[[[1.0]]]]}, "differ"),
        ({"expert_ids": np.array([None])}, "pickled"),
    ],
)
def test_wrong_npz(write_npz, arrays, expected):
    assert expected in error_of(write_npz(**arrays))


def test_wrong_options(write_npz):
    path = write_npz(**ONE)
    with pytest.raises(SpecmdError, match="did you mean decode"):
        import_trace(path, num_experts=8, phase="decod")
    with pytest.raises(SpecmdError, match="did you mean jsonl"):
        import_trace(path, "jsnl", num_experts=8)
    with pytest.raises(SpecmdError, match="--experts 0"):
        import_trace(path, num_experts=0)
    with pytest.raises(SpecmdError, match="--expert-bytes -1"):
        import_trace(path, num_experts=8, expert_bytes=-1)
    with pytest.raises(SpecmdError, match="give --experts"):
        import_trace(path)


@pytest.mark.parametrize("name", ["none.npz", "none.jsonl", "none.csv"])
def test_missing_and_directory(tmp_path, name):
    assert "no such file" in error_of(tmp_path / name)
    (tmp_path / name).mkdir()
    error_of(tmp_path / name)


# JSON lines


def test_jsonl_by_layer(write):
    path = write(
        "t.jsonl",
        jsonl(
            {"layer": 0, "experts": [3, 1], "weights": [0.7, 0.3], "token_id": 17},
            {"layer": 2, "experts": [0, 2], "weights": [0.5, 0.5], "token_id": 17},
            {"layer": 0, "experts": [4, 5], "weights": [1, 0], "token_id": 18},
            {"layer": 2, "experts": [6, 7], "weights": [0.9, 0.1], "token_id": 18},
        ),
    )
    trace = import_trace(path, num_experts=8)
    assert trace.expert_ids.tolist() == [[[3, 1], [0, 2]], [[4, 5], [6, 7]]]
    np.testing.assert_allclose(trace.weights[0], [[0.7, 0.3], [0.5, 0.5]], rtol=1e-6)
    assert trace.token_ids.tolist() == [17, 18]
    assert trace.step.tolist() == [0, 1]


def test_jsonl_by_token_means_the_same(write):
    by_layer = [
        {"request": r, "layer": layer, "experts": [layer, 4 + t]}
        for r in (0, 1)
        for t in (0, 1)
        for layer in (0, 1)
    ]
    by_token = [{"request": r, "experts": [[0, 4 + t], [1, 4 + t]]} for r in (0, 1) for t in (0, 1)]
    one = import_trace(write("a.jsonl", jsonl(*by_layer)), num_experts=8)
    two = import_trace(write("b.ndjson", jsonl(*by_token)), num_experts=8)
    assert one.digest == two.digest
    assert one.request.tolist() == [0, 0, 1, 1]


def test_jsonl_layer_by_layer_batches(write):
    """A hook on the layers of a batched model: all tokens of a layer, then the next layer."""
    rows = [
        {"step": 10 + s, "request": 5 + r, "layer": layer, "experts": [s * 4 + r * 2 + layer]}
        for s in (0, 1)
        for layer in (0, 1)
        for r in (0, 1)
    ]
    trace = import_trace(write("t.jsonl", jsonl(*rows)), num_experts=8)
    assert trace.step.tolist() == [0, 0, 1, 1]
    assert trace.request.tolist() == [0, 1, 0, 1]
    assert trace.expert_ids[:, :, 0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_jsonl_token_numbers_tell_mixed_rows_apart(write):
    rows = [
        {"token": t, "layer": layer, "experts": [t, 4 + layer], "phase": "prefill"}
        for layer in (0, 1)
        for t in (0, 1, 2)
    ]
    trace = import_trace(write("t.jsonl", jsonl(*rows)), num_experts=8)
    assert trace.num_steps == 1
    assert trace.expert_ids[:, 1].tolist() == [[0, 5], [1, 5], [2, 5]]


def test_jsonl_prefill_and_decode_of_two_requests(write):
    rows = [
        {"request": r, "phase": phase, "experts": [[t]]}
        for r in (0, 1)
        for t, phase in enumerate(["prefill", "prefill", "decode", "decode"])
    ]
    trace = import_trace(write("t.jsonl", jsonl(*rows)), num_experts=8)
    assert trace.step.tolist() == [0, 0, 1, 2, 3, 3, 4, 5]
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE, DECODE] * 2


def test_jsonl_phase_option_and_blank_lines(write):
    text = "\ufeff" + jsonl({"experts": [[1]]}) + "\n  \n" + jsonl({"experts": [[2]]}).rstrip()
    path = write("t.jsonl", text)
    assert import_trace(path, num_experts=8).num_steps == 2
    wide = import_trace(path, num_experts=8, phase="prefill")
    assert wide.num_steps == 1
    assert wide.phase.tolist() == [PREFILL, PREFILL]


GOOD = {"layer": 0, "experts": [0, 1]}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([GOOD, {"layer": 0, "experts": [2, 8]}], "line 2: expert 8 in layer 0, but --experts 8"),
        ([GOOD, {"layer": 0, "experts": [2, -1]}], "line 2: expert -1"),
        ([GOOD, {"layer": 0, "experts": [2, 2]}], "line 2: an expert is listed twice"),
        ([GOOD, {"layer": 0, "experts": [2, 1.5]}], "line 2: expert '1.5' is not"),
        ([GOOD, {"layer": 0, "experts": [2, True]}], "line 2: expert 'True' is not"),
        ([GOOD, {"layer": 0, "experts": [2, None]}], "line 2: expert 'None' is not"),
        ([GOOD, {"layer": 0, "experts": [2, 10**30]}], "line 2: expert '1000"),
        ([GOOD, {"layer": 0, "experts": 2}], "line 2: 'experts' is not a list"),
        ([GOOD, {"layer": 0}], "line 2: 'experts' is missing"),
        ([GOOD, {"experts": [1, 2]}], "line 2: without 'layer'"),
        ([GOOD, [1, 2]], "line 2: a JSON object is needed"),
        ([GOOD, GOOD | {"weights": [1, 2]}], "line 2: 'weights' is given here or on line 1"),
        ([GOOD | {"weights": [1]}], "line 1: 1 weights for 2 experts"),
        ([GOOD | {"weights": [1, -1]}], "line 1: weight -1.0"),
        ([GOOD | {"weights": [1, float("nan")]}], "line 1: weight nan"),
        ([GOOD | {"weights": [1, "much"]}], "line 1: weight 'much' is not a number"),
        ([GOOD | {"weights": {"a": 1}}], "line 1: 'weights' is not a list"),
        ([GOOD | {"phase": "both"}], "line 1: phase 'both'"),
        ([GOOD | {"step": 3}, GOOD | {"step": 2}], "line 2: step falls from 3 to 2"),
        ([GOOD, {"layer": 1, "experts": [0, 1]}, GOOD], "line 3: this token has no layer 1"),
        ([GOOD | {"token": 0}, GOOD | {"token": 0}], "line 2: layer 0 of the token on line 1"),
        (
            [GOOD | {"phase": "decode"}, GOOD | {"layer": 1, "phase": "prefill"}],
            "line 2: phase or token_id differ from those on line 1",
        ),
        ([{"experts": [[0], [1]], "weights": [[1]]}], "line 1: 1 layers of weights, not 2"),
        ([{"experts": []}], "no rows"),
        ([GOOD | {"topk_ids": [0, 1]}], "line 1: experts and topk_ids mean the same"),
        ([GOOD, GOOD | {"topk_ids": [0, 1]}], "line 2: experts and topk_ids mean the same"),
        ([GOOD, GOOD | {"step": 0}], "line 2: 'step' is given here or on line 1"),
        ([GOOD | {"request": 1}, GOOD | {"request": "b"}], "line 2: request 'b' is not"),
        ([GOOD | {"experts": []}], "line 1: no experts"),
    ],
)
def test_wrong_jsonl(write, rows, expected):
    assert expected in error_of(write("t.jsonl", jsonl(*rows)))


def test_jsonl_in_pieces(write, monkeypatch):
    """What holds between the lines of a file holds between those of two pieces."""
    monkeypatch.setattr("specmd.trace.importers.source._BLOCK", 32)
    rows = [GOOD | {"request": name, "weights": [0.5, 0.5]} for name in ("b", "a", "b")]
    nan = jsonl(GOOD | {"request": "c", "weights": [float("nan"), 0.5]})
    trace = import_trace(write("t.jsonl", jsonl(*rows)), num_experts=8)
    assert trace.request.tolist() == [0, 0, 1]
    assert "line 5: weight nan" in error_of(write("t.jsonl", jsonl(*rows) + "\n" + nan))
    mixed = [GOOD | {"request": request} for request in ("b", 1)]
    assert "line 2: request" in error_of(write("t.jsonl", jsonl(*mixed)))


def test_jsonl_that_is_not(write, tmp_path):
    assert "line 2: not valid JSON" in error_of(write("t.jsonl", jsonl(GOOD) + "{'layer': 0}"))
    assert "line 1: not valid JSON" in error_of(write("t.jsonl", "[" * 200_000))
    assert "no rows: the file is empty" in error_of(write("t.jsonl", "\n \n"))
    binary = tmp_path / "b.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in error_of(binary)


# CSV


def test_csv_one_expert_a_row(write):
    path = write(
        "t.csv",
        "request,token,layer,expert,weight\n"
        "0,0,3,5,0.75\n0,0,3,2,0.25\n0,0,4,1,0.5\n0,0,4,0,0.5\n"
        "1,1,3,7,1.0\n1,1,3,6,0\n1,1,4,3,.5\n1,1,4,4,.5\n",
    )
    trace = import_trace(path, num_experts=8)
    assert trace.expert_ids.tolist() == [[[5, 2], [1, 0]], [[7, 6], [3, 4]]]
    assert trace.weights[0].tolist() == [[0.75, 0.25], [0.5, 0.5]]
    assert trace.request.tolist() == [0, 1]


def test_csv_expert_lists_mean_the_same(write):
    single = "layer,expert,step,phase\n0,5,0,decode\n0,2,0,decode\n0,1,1,decode\n0,3,1,decode\n"
    lists = "Layer, Experts, Step, Phase\n0,5 2,0,1\n0,1;3,1,1\n"
    one = import_trace(write("a.csv", single), num_experts=8)
    two = import_trace(write("b.csv", lists), num_experts=8)
    assert one.digest == two.digest
    assert two.expert_ids.tolist() == [[[5, 2]], [[1, 3]]]


@pytest.mark.parametrize("head", ["", "layer,expert\n"])
def test_csv_of_llama_cpp(write, head):
    # A prompt of two tokens, then one decoded token; layers 1 and 2; two experts each.
    text = "1,0\n1,1\n1,2\n1,3\n2,4\n2,5\n2,6\n2,7\n" + "1,5\n1,6\n2,0\n2,3\n"
    trace = import_trace(write("t.csv", head + text), num_experts=8)
    assert trace.expert_ids.tolist() == [
        [[0, 1], [4, 5]],
        [[2, 3], [6, 7]],
        [[5, 6], [0, 3]],
    ]
    assert trace.step.tolist() == [0, 0, 1]
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE]
    wide = import_trace(write("t.csv", head + text), num_experts=8, phase="prefill")
    assert wide.expert_ids.tolist() == trace.expert_ids.tolist()
    assert wide.step.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "no rows"),
        ("layer,expert\n", "no rows"),
        ("layer,experts\n", "no rows"),
        ("0,1\n0,x\n", "line 2: expert 'x' is not"),
        ("0,1\n1,2\n0,9\n1,1\n", "line 3: expert 9 in layer 0, but --experts 8"),
        ("0,1\n1,2,3\n", "line 2: 3 cells"),
        ("0,1\n0,2\n0,3\n", "only one layer"),
        ("0,1\n0,2\n1,1\n1,2\n1,3\n", "line 3: layer 1 has 3 rows in this pass, not 2"),
        ("0,1\n0,2\n1,1\n1,2\n0,1\n0,1\n1,0\n1,1\n", "line 5: an expert is listed twice"),
        ("0,1\n1,2\n2,1\n0,1\n1,3\n", "line 4: this token has no layer 2"),
        ("layer,expert,colour\n0,1,2\n", "unknown column in line 1: 'colour'"),
        ("layer,expert,expert\n0,1,2\n", "named twice"),
        ("layer,token\n0,1\n", "either 'expert' or 'experts'"),
        ("step,experts\n0,1\n", "'layer' and either"),
        ("layer,experts\n0,1 2\n0\n", "line 3: 1 cells, but there are 2 columns"),
        ("layer,experts\n0,1 1\n", "line 2: an expert is listed twice"),
        ("layer,experts,weights\n0,1 2,0.5\n", "line 2: 1 weights for 2 experts"),
        ("layer,experts,weights\n0,1 2,0.5 inf\n", "line 2: weight inf"),
        ("layer,experts,phase\n0,1 2,later\n", "line 2: phase 'later'"),
        ("layer,experts,step\n0,1 2,\n", "line 2: step '' is not"),
        ('layer,experts\n0,"1 2\n', "not valid CSV"),
    ],
)
def test_wrong_csv(write, text, expected):
    assert expected in error_of(write("t.csv", text))


def test_imported_traces_are_saved_and_loaded(write, tmp_path):
    trace = import_trace(write("t.csv", "0,1\n1,2\n0,3\n1,4\n"), num_experts=8)
    check_trace(trace)
    assert load(save(trace, tmp_path / "t.npz")).digest == trace.digest
