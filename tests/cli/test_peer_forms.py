"""Other programs' recordings through the command line, one minimal file each.

`pytest -v tests/cli/test_peer_forms.py` lists them.
"""

import pytest
from plain_readers import READERS, require_same
from test_import_fuzz import CASES
from test_trace_forms import PROMPT

from specmd.trace import load

PEERS = {
    "vLLM, response": ("response", "response"),
    "vLLM, response with base64 npy": ("response-coded", "response"),
    "vLLM, npy": ("npy", "npy"),
    "vLLM, layer log": ("vllm-log", "jsonl"),
    "SGLang, response": ("sglang", "response"),
    "BigMoeOnEdge, route CSV": ("big-moe", "big-moe"),
    "WARP, JSON lines": ("warp", "jsonl"),
    "lattice, JSON lines": ("jsonl", "jsonl"),
    "ik_llama.cpp, NDJSON": ("ik-llama", "ik-llama"),
    "llama.cpp, layer,expert": ("llama-cpp", "llama-cpp"),
    "FineMoE, npz": ("maps", "multi-hot"),
    "MoE-Infinity, npz": ("collection", "multi-hot"),
}
SELF_TOLD = ("big-moe", "ik-llama", "multi-hot")
"""Forms that say how many experts there are."""


@pytest.mark.parametrize("peer", PEERS)
def test_a_minimal_file_is_imported(specmd, tmp_path, peer):
    case, kind = PEERS[peer]
    source, out = tmp_path / "recording", tmp_path / "trace.npz"
    source.write_bytes(CASES[case])
    options = [] if kind in SELF_TOLD else ["--experts", "4"]
    options += ["--top-k", "2"] if case == "sglang" else []
    done = specmd("import", source, out, *options)
    assert (done.code, done.out) == (0, "")
    trace = load(out)
    assert trace.header.recorder == f"specmd import --kind {kind}"
    assert trace.header.num_experts == 4
    require_same(trace, READERS[kind](CASES[case]))
    assert specmd("import", source, out, *options, "--kind", kind).code == 0
    assert load(out).digest == trace.digest


def test_a_minimal_parquet_is_imported(specmd, tmp_path):
    pytest.importorskip(
        "pyarrow", reason="parquet is an extra: pip install 'specmd-bench[parquet]'"
    )
    import pandas as pd

    frame = pd.DataFrame(
        {
            "layer": [0, 1, 0, 1],
            "experts": [experts for token in PROMPT for experts in token],
            "weights": [[0.75, 0.25]] * 4,
            "token": [0, 0, 1, 1],
        }
    )
    frame.to_parquet(tmp_path / "recording")
    done = specmd("import", tmp_path / "recording", tmp_path / "trace.npz", "--experts", "4")
    assert done.code == 0
    trace = load(tmp_path / "trace.npz")
    assert trace.expert_ids.tolist() == PROMPT
    assert trace.weights[1, 0].tolist() == [0.75, 0.25]
