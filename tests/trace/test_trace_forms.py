"""Importers of other programs' forms: minimal examples of each, told by their content."""

import base64
import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.runs.options import RunConfig
from specmd.simulation.replay import replay
from specmd.trace import DECODE, PREFILL, import_trace, load, save, synthetic
from specmd.trace.export import export_trace
from specmd.trace.importers import FORMS

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "traces"

BIG_MOE = """\
# route_trace v1
# model=/phone/models/small-Q4.gguf arch=small n_layer=2 n_expert=4 n_expert_used=2
# layer=0 expert_bytes=300 dense_bytes=7
# layer=1 expert_bytes=100 dense_bytes=7
turn,phase,step,layer,slot,expert,weight,residency,expert_bytes
0,0,0,0,0,3,0.75,0,300
0,0,0,0,1,1,0.25,0,300
0,0,1,0,0,2,0.5,0,300
0,0,1,0,1,1,0.5,0,0
0,0,1,1,0,0,0.9,0,100
0,0,1,1,1,2,0.1,0,100
0,1,2,0,0,1,1,1,0
0,1,2,1,0,2,0.6,1,0
0,1,2,1,1,3,0.4,0,100
"""

IK_LLAMA = """\
{"type":"meta","schema":"ik_llama.moe_routing_trace","version":1,"model":"/m/tiny.gguf"}
{"type":"model","n_layer":2,"moe_layer_ids":[0,1]}
{"type":"route","event":0,"sequence":0,"batch_index":0,"pos":5,"layer":0,"n_expert":4,\
"input_token_id":9,"selected":[{"rank":0,"expert":3,"weight":0.75},{"rank":1,"expert":0,"weight":0.25}]}
{"type":"route","event":1,"sequence":0,"batch_index":0,"pos":5,"layer":1,"n_expert":4,\
"input_token_id":9,"selected":[{"rank":0,"expert":1,"weight":1.0},{"rank":1,"expert":2,"weight":0}]}
{"type":"end","complete":true,"routes":2,"batches":1}
"""

WARP = '{"tok": 1, "layers": [[0, 2], [1, 3]]}\n{"tok": 2, "layers": [[1, 2], [0, 3]]}\n'

LATTICE = """\
{"layer_idx": 0, "token_idx": 0, "selected_ids": [3, 1], "gate_weights": [0.75, 0.25]}
{"layer_idx": 0, "token_idx": 1, "selected_ids": [2, 1], "gate_weights": [0.5, 0.5], "more": 1}
{"layer_idx": 4, "token_idx": 0, "selected_ids": [0, 1], "gate_weights": [1, 0]}
{"layer_idx": 4, "token_idx": 1, "selected_ids": [0, 2], "gate_weights": [1, 0]}
"""

VLLM_LOG = '{"type": "meta", "model_id": "m", "layers_logged": [0, 1], "top_k": 2}\n' + "".join(
    json.dumps(
        {
            "type": "route",
            "req_id": "r0",
            "token_idx": token,
            "layer": layer,
            "topk_ids": ids,
            "topk_weights": [0.75, 0.25],
        }
    )
    + "\n"
    for token, layer, ids in (
        (0, 0, [3, 1]),
        (1, 0, [2, 1]),
        (0, 1, [0, 1]),
        (1, 1, [0, 2]),
        (0, 0, [0, 1]),
        (0, 1, [3, 2]),
    )
)

LLAMA_CPP = "0,0\n0,1\n0,2\n0,3\n1,1\n1,2\n0,1\n0,2\n1,3\n1,0\n"  # layer 1: the last token only

PROMPT = [[[3, 1], [0, 2]], [[2, 1], [1, 2]]]
ANSWER = [[[0, 1], [3, 2]]]
VLLM = json.dumps({"prompt_routed_experts": PROMPT, "choices": [{"routed_experts": ANSWER}]})


def npy(ids):
    file = io.BytesIO()
    np.save(file, np.array(ids, np.uint8))
    return file.getvalue()


VLLM_CODED = json.dumps(
    {
        "usage": {"prompt_tokens": 2, "completion_tokens": 2},
        "choices": [{"routed_experts": base64.b64encode(npy(PROMPT + ANSWER)).decode()}],
    },
    indent=1,
)
FLAT = base64.b64encode(struct.pack("<12i", *np.ravel(PROMPT + ANSWER))).decode()
SGLANG = json.dumps(
    {
        "text": "",
        "meta_info": {"prompt_tokens": 2, "completion_tokens": 2, "routed_experts": FLAT},
    }
)
JSON_ROWS = '{"layer": 0, "experts": [3, 1]}\n{"layer": 1, "experts": [0, 2]}\n'
CSV_ROWS = "layer,experts,token,weights\n0,3 1,0,0.5 0.5\n1,0,0,1\n0,2 1,1,0.5 0.5\n"
SAMPLES = {
    "big-moe": BIG_MOE,
    "ik-llama": IK_LLAMA,
    "jsonl": LATTICE,
    "warp": WARP,
    "vllm-log": VLLM_LOG,
    "llama-cpp": LLAMA_CPP,
    "response": VLLM,
    "response-coded": VLLM_CODED,
    "sglang": SGLANG,
    "rows": JSON_ROWS,
    "csv": CSV_ROWS,
}


@pytest.fixture
def imported(tmp_path):
    def read(content, **options):
        path = tmp_path / "recording"  # no suffix: the content tells
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_trace(path, **({"num_experts": 4} | options))

    return read


def rows(trace):
    """The experts of every token and layer, as far as it chose."""
    ids = trace.expert_ids.tolist()
    return [[[e for e in row if e < trace.header.num_experts] for row in t] for t in ids]


def test_big_moe(imported):
    trace = imported(BIG_MOE, num_experts=None)
    assert rows(trace) == [[[3, 1], []], [[2, 1], [0, 2]], [[1], [2, 3]]]
    assert trace.step.tolist() == [0, 0, 1]
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE]
    assert trace.weights[2].tolist() == [[1, 0], pytest.approx([0.6, 0.4])]
    header = trace.header
    assert (header.model, header.num_experts, header.expert_bytes) == ("small-Q4", 4, 200)
    assert header.expert_bytes_by_layer == (300, 100)
    assert header.notes == "ragged: 1 rows of fewer experts, 1 layers that a token did not reach"
    with pytest.raises(SpecmdError, match="the file says 4 experts a layer, not 8"):
        imported(BIG_MOE, num_experts=8)


def test_ik_llama(imported):
    trace = imported(IK_LLAMA, num_experts=None)
    assert rows(trace) == [[[3, 0], [1, 2]]]
    assert (trace.header.num_experts, trace.header.model, trace.header.complete) == (
        4,
        "tiny",
        True,
    )
    assert trace.token_ids.tolist() == [9]
    cut = "\n".join(IK_LLAMA.splitlines()[:4])
    assert not imported(cut).header.complete


def test_warp(imported):
    trace = imported(WARP)
    assert rows(trace) == [[[0, 2], [1, 3]], [[1, 2], [0, 3]]]
    assert trace.step.tolist() == [0, 1]


def test_lattice(imported):
    trace = imported(LATTICE)
    assert rows(trace) == [[[3, 1], [0, 1]], [[2, 1], [0, 2]]]
    assert trace.weights[0, 0].tolist() == [0.75, 0.25]
    assert trace.step.tolist() == [0, 1]
    assert imported(LATTICE, phase="prefill").step.tolist() == [0, 0]


def test_a_vllm_layer_log_counts_tokens_from_0_in_each_pass(imported):
    trace = imported(VLLM_LOG)
    assert rows(trace) == [[[3, 1], [0, 1]], [[2, 1], [0, 2]], [[0, 1], [3, 2]]]
    assert trace.step.tolist() == [0, 0, 1]
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE]


def test_llama_cpp_computes_the_last_tokens_of_a_prompt_in_its_last_layer(imported):
    trace = imported(LLAMA_CPP)
    assert rows(trace) == [[[0, 1], []], [[2, 3], [1, 2]], [[1, 2], [3, 0]]]
    assert trace.step.tolist() == [0, 0, 1]
    chunked = "0,0\n0,1\n0,2\n0,3\n" + LLAMA_CPP  # a first part of the prompt, with no output
    assert rows(imported(chunked)) == [[[0, 1], []], [[2, 3], []], *rows(trace)]
    with pytest.raises(SpecmdError, match="line 11: this token has no layer 1"):
        imported(LLAMA_CPP + "0,0\n0,1\n")


@pytest.mark.parametrize(
    "text",
    [
        VLLM,
        VLLM_CODED,
        f"[{VLLM}]",
        json.dumps({"prompt_token_ids": [5, 6], "outputs": [{"routed_experts": PROMPT + ANSWER}]}),
        json.dumps({"routed_experts": ANSWER, "prompt_routed_experts": PROMPT}),
    ],
)
def test_responses_of_vllm(imported, text):
    trace = imported(text)
    assert rows(trace) == PROMPT + ANSWER
    assert trace.step.tolist() == [0, 0, 1]
    assert trace.phase.tolist() == [PREFILL, PREFILL, DECODE]
    assert trace.prompt_lengths.tolist() == [2]


def test_several_responses_and_choices(imported):
    trace = imported(f"{VLLM}\n{VLLM}\n")
    assert trace.request.tolist() == [0, 0, 0, 1, 1, 1]
    assert trace.step.tolist() == [0, 0, 1, 2, 2, 3]
    both = json.dumps(
        {"usage": {"prompt_tokens": 2}, "choices": [{"routed_experts": PROMPT + ANSWER}] * 2}
    )
    trace = imported(both)
    assert rows(trace) == PROMPT + ANSWER + ANSWER  # the prompt is computed once
    assert trace.request.tolist() == [0, 0, 0, 1]


def test_layers_without_experts_are_left_out(imported):
    ids = np.zeros((3, 2, 2), np.uint8)
    ids[:, 1] = [[0, 1], [2, 3], [1, 0]]
    trace = imported(npy(ids), prompt_tokens=2)
    assert trace.expert_ids[:, 0].tolist() == ids[:, 1].tolist()
    assert trace.header.notes == "no experts in layers 0"


def test_an_array_of_vllm(imported):
    trace = imported(npy(PROMPT + ANSWER), prompt_tokens=2)
    assert trace.digest == imported(VLLM).digest
    assert imported(npy(PROMPT + ANSWER)).step.tolist() == [0, 1, 2]
    with pytest.raises(SpecmdError, match="9 prompt tokens, but there are 3 rows"):
        imported(npy(PROMPT + ANSWER), prompt_tokens=9)


def test_responses_of_sglang(imported):
    assert imported(SGLANG, top_k=2).digest == imported(VLLM).digest
    with pytest.raises(SpecmdError, match="give --top-k"):
        imported(SGLANG)
    with pytest.raises(SpecmdError, match="12 ids are not of 3 tokens"):
        imported(SGLANG, top_k=3)


def test_maps_over_all_experts(tmp_path):
    nodes = np.zeros((2, 1, 4))
    nodes[0, 0, [1, 3]] = nodes[1, 0, 2] = 1
    probs = np.array([[[0.1, 0.2, 0.1, 0.6]], [[0, 0.1, 0.9, 0]]])
    np.savez(tmp_path / "m.npz", nodes=nodes, probs=probs, stage=[0, 1])
    trace = import_trace(tmp_path / "m.npz")
    assert rows(trace) == [[[3, 1]], [[2]]]
    assert trace.weights[0, 0].tolist() == pytest.approx([0.6, 0.2])
    assert trace.phase.tolist() == [PREFILL, DECODE]
    np.savez(tmp_path / "c.npz", trace_collection=nodes * 2)
    with pytest.raises(SpecmdError, match="have lost the order"):
        import_trace(tmp_path / "c.npz")


def test_parquet(tmp_path, imported):
    pytest.importorskip(
        "pyarrow", reason="parquet is an extra: pip install 'specmd-bench[parquet]'"
    )
    import pandas as pd

    frame = pd.DataFrame({"layer": [0, 1], "experts": [[3, 1], [0, 2]], "token": [0, 0]})
    frame.to_parquet(tmp_path / "t.parquet")
    frame.assign(colour=0).to_parquet(tmp_path / "u.parquet")
    with pytest.raises(SpecmdError, match="unknown column in parquet: 'colour'"):
        import_trace(tmp_path / "u.parquet", num_experts=4)
    assert rows(import_trace(tmp_path / "t.parquet", num_experts=4)) == [[[3, 1], [0, 2]]]


@pytest.mark.parametrize("name", SAMPLES)
def test_files_are_read_in_pieces_and_with_other_ends_of_lines(imported, monkeypatch, name):
    text = SAMPLES[name]
    whole = imported(text, top_k=2)
    for other in (text.replace("\n", "\r\n"), "\ufeff" + text, text.rstrip(), "\n \n" + text):
        assert imported(other, top_k=2).digest == whole.digest
    monkeypatch.setattr("specmd.trace.importers.source._BLOCK", 7)
    assert imported(text, top_k=2).digest == whole.digest
    assert imported(text, top_k=2).header == whole.header


def test_rows_of_fewer_experts_are_kept(imported):
    trace = imported('{"layer": 0, "experts": [3, 1]}\n{"layer": 0, "experts": [2]}\n')
    assert rows(trace) == [[[3, 1]], [[2]]]
    assert rows(imported(CSV_ROWS)) == [[[3, 1], [0]], [[2, 1], []]]


@pytest.mark.parametrize(
    "text", ['{"a": 1}\n', "a,b\n1,2\n", "hello", "[]", "{}", b"PK\x03\x04", b"\x00"]
)
def test_what_is_not_recognised_is_an_error_that_lists_what_is(imported, text):
    with pytest.raises(SpecmdError) as caught:
        imported(text)
    message = str(caught.value)
    assert "truncated or damaged" in message or all(form.kind in message for form in FORMS)


@pytest.mark.parametrize("form", ["csv", "jsonl", "llama-cpp", "npy", "warp"])
def test_what_is_exported_is_imported_again(tmp_path, form):
    trace = synthetic(
        num_layers=3, num_experts=8, top_k=2, num_requests=1, prompt_length=2, decode_length=5
    )
    export_trace(trace, tmp_path / "out", form)
    again = import_trace(tmp_path / "out", num_experts=8)
    np.testing.assert_array_equal(again.expert_ids, trace.expert_ids)
    if form in ("csv", "jsonl"):
        np.testing.assert_array_equal(again.step, trace.step)
        np.testing.assert_array_equal(again.weights, trace.weights)
        np.testing.assert_array_equal(again.phase, trace.phase)


def test_lines_of_json_say_what_the_header_says(tmp_path):
    trace = synthetic(num_layers=2, num_experts=8, top_k=2, expert_bytes=7, model="of/mine")
    export_trace(trace, tmp_path / "out", "jsonl")
    again = import_trace(tmp_path / "out")
    np.testing.assert_array_equal(again.expert_ids, trace.expert_ids)
    header = again.header
    assert (header.model, header.num_experts, header.expert_bytes) == ("of/mine", 8, 7)
    other = import_trace(tmp_path / "out", expert_bytes=[3, 5], model="other")
    assert (other.header.expert_bytes, other.header.expert_bytes_by_layer) == (4, (3, 5))
    assert other.header.model == "other"
    with pytest.raises(SpecmdError, match="the file says 8 experts a layer, not 9"):
        import_trace(tmp_path / "out", num_experts=9)


@pytest.mark.parametrize("form", ["csv", "jsonl", "llama-cpp"])
def test_ragged_traces_are_exported_too(tmp_path, imported, form):
    trace = imported(LLAMA_CPP)
    export_trace(trace, tmp_path / "out", form)
    again = import_trace(tmp_path / "out", num_experts=4)
    assert again.digest == trace.digest
    assert load(save(again, tmp_path / "t.npz")).digest == trace.digest
    with pytest.raises(SpecmdError, match="export csv or jsonl"):
        export_trace(trace, tmp_path / "out", "npy")


@pytest.mark.parametrize(
    ("name", "mib", "expected"), [("qwen3_30b_a3b", 4000, 74.9), ("gptoss_120b", 3000, 32.4)]
)
def test_recordings_of_a_phone_give_its_own_hit_rates(name, mib, expected):
    path = SHARED / "bigmoe" / f"{name}.route.csv"
    if not path.exists():
        pytest.skip(f"real trace {path.name} is not on this machine")
    trace = import_trace(path)
    slots = mib * 2**20 // trace.header.expert_bytes
    run = replay(trace, RunConfig(capacity=str(slots), capacity_slots=slots))
    count = run.counters.sum((0, 1))
    assert 100 * count[1] / count[0] == pytest.approx(expected, abs=0.3)


def test_the_recording_of_warp():
    path = SHARED / "warp" / "olmoe_299.jsonl"
    if not path.exists():
        pytest.skip(f"real trace {path.name} is not on this machine")
    trace = import_trace(path, num_experts=64)
    assert (trace.expert_ids.shape, trace.num_steps) == ((299, 16, 8), 299)


@pytest.mark.parametrize("text", ["0,0\n0\0,1\n1,2\n", "layer,expert\n0,\x001\n"])
def test_a_nul_byte_is_refused_whatever_a_reader_would_make_of_it(tmp_path, text):
    path = tmp_path / "recording"
    path.write_bytes(text.encode())
    with pytest.raises(SpecmdError, match="NUL byte"):
        import_trace(path, num_experts=4)
