"""`specmd record`: a trace of the tiny model, and one clear line where there can be none."""

import json

import pytest

from specmd.trace import load

PROMPTS = [
    {"text": "def add(a, b):", "domain": "code"},
    {"text": "It was a dark night", "domain": "prose"},
    {"text": "return", "domain": "code"},
]


@pytest.fixture
def prompts(tmp_path):
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return path


@pytest.fixture
def record(specmd, prompts, tmp_path):
    """Record a few tokens into t.npz; later arguments win."""

    def call(*argv):
        return specmd(
            "record", "tiny", "--prompts", prompts, "--out", tmp_path / "t.npz",
            "--max-new-tokens", 4, *argv,
        )  # fmt: skip

    return call


def test_a_trace_and_a_line_about_it(record, specmd, tmp_path):
    done = record("--batch", 2)
    assert done.code == 0, done.err
    assert done.out == ""
    trace = load(tmp_path / "t.npz", verify=True)
    assert done.err.endswith(
        f"{trace.num_tokens} tokens in {trace.num_steps} steps of 3 requests; "
        f"8 layers x 16 experts, top-4; digest {trace.digest}\n"
    )
    assert trace.header.complete
    assert "2 code, 1 prose" in trace.header.source
    assert trace.weights is not None
    assert trace.logits is None
    assert trace.lookahead.shape[2] == 1
    assert not list(tmp_path.glob("*.partial"))
    assert specmd("validate", "trace", tmp_path / "t.npz").code == 0
    assert specmd("simulate", tmp_path / "t.npz", "-c", "25%").code == 0


def test_the_same_seed_gives_the_same_trace_and_threads_are_given_back(record, tmp_path):
    import torch

    before, digests = torch.get_num_threads(), []
    for threads in ((), ("--threads", 1), ()):
        assert record(*threads).code == 0
        digests.append(load(tmp_path / "t.npz").digest)
        assert torch.get_num_threads() == before
    assert len(set(digests)) == 1


def test_options_reach_the_recorder(record, tmp_path):
    options = ("--domain", "code", "--logits", "full", "--lookahead", 2, "--temperature", 0)
    assert record(*options, "--prefill-chunk", 2).code == 0
    trace = load(tmp_path / "t.npz")
    assert trace.num_requests == 2
    assert trace.logits is not None
    assert trace.lookahead.shape[2] == 2
    assert "greedy" in trace.header.notes
    assert record("--logits", "none", "--lookahead", 0).code == 0
    bare = load(tmp_path / "t.npz")
    assert bare.weights is None
    assert bare.lookahead is None


def test_the_seed_decides_the_text(record, tmp_path):
    digests = []
    for seed in (1, 1, 2):
        assert record("--seed", seed, "--temperature", 2).code == 0
        digests.append(load(tmp_path / "t.npz").digest)
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--prompts", "none.jsonl"], "none.jsonl"),
        (["--domain", "poems"], "known: code, prose"),
        (["--logits", "some"], "some"),
        (["--batch", "0"], "--batch"),
        (["--max-new-tokens", "0"], "--max-new-tokens"),
        (["--lookahead", "-1"], "--lookahead"),
        (["--temperature", "-1"], "--temperature"),
        (["--prefill-chunk", "0"], "--prefill-chunk"),
        (["--recover"], "no interrupted recording"),
    ],
)
def test_wrong_usage_is_one_line(record, tmp_path, argv, said):
    check_line(record(*argv), said)
    assert not (tmp_path / "t.npz").exists()
    assert not (tmp_path / "t.npz.partial").exists()


def test_out_is_a_folder(record, tmp_path):
    check_line(record("--out", tmp_path), "is a folder")


def test_a_model_that_is_not_there(specmd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_line(specmd("record", "./nowhere"), "./nowhere: no such folder")
    check_line(specmd("record", tmp_path), "config.json")
    (tmp_path / "config.json").write_text("{}")
    check_line(specmd("record", tmp_path), "cannot be loaded")


def test_a_model_without_experts(specmd, tmp_path, prompts):
    transformers = pytest.importorskip("transformers")
    from specmd.models.tiny import path

    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=16, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64,
    )  # fmt: skip
    folder = tmp_path / "dense"
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_bytes((path() / name).read_bytes())
    out = tmp_path / "t.npz"
    check_line(
        specmd("record", folder, "--prompts", prompts, "--out", out), "no Mixture-of-Experts"
    )
    assert not list(tmp_path.glob("t.npz*"))


def test_a_killed_recording_is_in_the_way_until_it_is_rescued(record, tmp_path, monkeypatch):
    from specmd.recording.recorder import FileColumns

    with monkeypatch.context() as patch:  # as after a kill: rows on disk, no trace, the folder left
        patch.setattr(FileColumns, "discard", lambda self: None)
        assert record().code == 0
    (tmp_path / "t.npz").unlink()
    check_line(record(), "--recover")
    done = record("--recover")
    assert done.code == 0, done.err
    assert "incomplete" in done.err
    assert not load(tmp_path / "t.npz").header.complete
    assert record().code == 0


def test_ctrl_c_keeps_what_there_is(record, tmp_path, monkeypatch):
    import specmd.models.generation as generate

    def interrupted(*args):
        if encoded:
            raise KeyboardInterrupt
        encoded.append(args)
        return original(*args)

    encoded = []
    original = generate._encode
    monkeypatch.setattr(generate, "_encode", interrupted)
    done = record()
    assert done.code == 130
    assert "marked incomplete" in done.err
    trace = load(tmp_path / "t.npz")
    assert not trace.header.complete
    assert trace.num_requests == 1


def check_line(done, said):
    assert done.code == 2, done.err
    assert done.out == ""
    assert done.err.startswith("specmd: error: ")
    assert done.err.count("\n") == 1
    assert said in done.err
