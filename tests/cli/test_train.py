"""`specmd split` and `specmd train`: from one recording to a policy that is judged on the rest."""

import json


def test_the_program_trains_splits_and_says_what_is_wrong(specmd, trace_file, tmp_path):
    one, other, file = (tmp_path / name for name in ("one.npz", "other.npz", "w.safetensors"))
    assert specmd("split", trace_file, one, other).code == 0
    done = specmd("train", "learned_linear", one, "-o", file)
    assert done.code == 0
    assert "learned_linear of" in done.err
    made = specmd("simulate", other, "-e", f"learned_linear:model={file}", "-c", "25%",
                  "--no-bounds", "--export", tmp_path / "runs.json")  # fmt: skip
    assert made.code == 0
    assert json.loads((tmp_path / "runs.json").read_text())[0]["status"] == "ok"
    wrong = specmd("simulate", one, "-e", f"learned_linear:model={file}", "-c", "25%")
    assert wrong.code == 1
    assert "makes two traces of one" in wrong.err
    for command in (
        ("train", "learned_linear", tmp_path / "none.npz", "-o", file),
        ("train", "nothing", one, "-o", file),
        ("split", one, other, other, "--share", "2"),
    ):
        failed = specmd(*command)
        assert failed.code == 2, command
        assert len(failed.err.splitlines()) == 1
    assert specmd("train", "learned_linear", one, "-o", tmp_path).code == 5
