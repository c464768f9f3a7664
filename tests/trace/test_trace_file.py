"""The trace file: round trips, and every kind of file that is not a trace."""

import io
import json
import os
import struct
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from specmd.errors import SpecmdError
from specmd.trace import build_trace, load, save, synthetic
from specmd.trace.file import MAP_ABOVE_BYTES, MAX_HEADER_BYTES


@pytest.fixture
def trace():
    return synthetic(
        num_layers=3, num_requests=3, prompt_length=4, decode_length=6, lookahead_depth=2, batch=2
    )


@pytest.fixture
def good(trace, tmp_path):
    return save(trace, tmp_path / "good.npz")


def members(path):
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def rewritten(path, **changes):
    """Save the file again with members replaced, or left out where the value is None."""
    arrays = members(path) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def header_of(path, **changes):
    fields = json.loads(bytes(members(path)["header"])) | changes
    return np.frombuffer(json.dumps(fields).encode(), dtype=np.uint8)


def error_of(path, **options):
    with pytest.raises(SpecmdError) as caught:
        load(path, **options)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message.replace(str(path), "")


def assert_equal(one, two):
    assert set(one.arrays()) == set(two.arrays())
    for name, array in one.arrays().items():
        assert array.dtype == two.arrays()[name].dtype, name
        np.testing.assert_array_equal(array, two.arrays()[name], err_msg=name)


@pytest.mark.parametrize("verify", [False, True])
def test_round_trip(trace, good, verify):
    back = load(good, verify=verify)
    assert_equal(trace, back)
    assert back.digest == trace.digest == back.header.digest
    assert back.header.model_copy(update={"digest": ""}) == trace.header


def test_every_optional_array_round_trips(tmp_path):
    rng = np.random.default_rng(7)
    trace = build_trace(
        np.argsort(rng.random((5, 2, 300)), axis=2)[:, :, :3],
        num_experts=300,
        weights=rng.random((5, 2, 3)),
        token_ids=np.arange(5),
        prompt_lengths=[-1],
        logits=rng.normal(size=(5, 2, 300)),
        lookahead=rng.normal(size=(5, 2, 1, 300)),
        lookahead_renormalised=rng.normal(size=(5, 2, 1, 300)),
        header={"shape": {"hidden": 64, "dtype": "bfloat16"}, "expert_bytes": 12},
    )
    assert trace.expert_ids.dtype == np.uint16
    back = load(save(trace, tmp_path / "t.npz"), verify=True)
    assert_equal(trace, back)
    assert len(back.arrays()) == 10
    assert back.header.shape == {"hidden": 64, "dtype": "bfloat16"}


def test_numpy_alone_reads_it(trace, good):
    arrays = members(good)
    header = json.loads(bytes(arrays["header"]))
    assert header["schema"] == "specmd.trace"
    assert header["version"] == 1
    assert header["digest"] == trace.digest
    np.testing.assert_array_equal(arrays["expert_ids"], trace.expert_ids)


def test_equal_traces_give_equal_bytes(trace, good, tmp_path):
    assert save(load(good), tmp_path / "again.npz").read_bytes() == good.read_bytes()


def data_start(data, info):
    return info.header_offset + 30 + sum(struct.unpack_from("<HH", data, info.header_offset + 26))


def test_members_are_aligned(good):
    with zipfile.ZipFile(good) as archive:
        for info in archive.infolist():
            assert data_start(good.read_bytes(), info) % 64 == 0


def test_files_resaved_by_numpy_load(trace, good):
    np.savez_compressed(good, **members(good))
    assert_equal(trace, load(good, verify=True))
    np.savez(good, **members(good))
    assert_equal(trace, load(good, verify=True))


def test_large_scores_are_mapped_not_read(tmp_path):
    tokens = MAP_ABOVE_BYTES // (2 * 4096) + 1
    logits = np.zeros((tokens, 1, 4096), dtype=np.float16)
    logits[-1, 0, 5] = 1.5
    ids = np.zeros((tokens, 1), dtype=np.int64)
    path = save(build_trace(ids, num_experts=4096, logits=logits), tmp_path / "t.npz")
    back = load(path)
    assert not back.logits.flags.writeable
    assert back.logits.base is not None
    np.testing.assert_array_equal(back.logits[-1], logits[-1])
    assert load(path, verify=True).logits.flags.writeable


@pytest.mark.parametrize("verify", [False, True])
def test_an_edit_is_noticed_where_the_digest_is_relied_upon(good, verify):
    arrays = members(good)
    weights = arrays["weights"].copy()
    weights[0, 0, 0] = 0
    rewritten(good, weights=weights)
    with pytest.raises(SpecmdError, match=r"good.npz: .* does not match its digest"):
        load(good, verify=verify).digest  # noqa: B018 - asked for, and refused


def test_what_is_made_of_a_loaded_trace_is_not_an_edit_of_it(good):
    whole = load(good)
    made = replace(whole, weights=None)
    assert made.digest != whole.digest


def test_digest_depends_on_content_alone(trace):
    renamed = replace(trace, header=trace.header.model_copy(update={"notes": "other"}))
    assert renamed.digest == trace.digest
    for name, array in trace.arrays().items():
        changed = array.copy()
        changed.flat[0] = 1 if changed.flat[0] != 1 else 2
        assert replace(trace, **{name: changed}).digest != trace.digest, name
    assert replace(trace, weights=None).digest != trace.digest


def test_failed_write_leaves_the_old_file(good, trace, monkeypatch):
    before = good.read_bytes()

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SpecmdError, match="No space left"):
        save(trace, good)
    assert good.read_bytes() == before
    assert [entry.name for entry in good.parent.iterdir()] == [good.name]


def test_a_reader_of_the_old_file_keeps_it(good):
    before = good.read_bytes()
    with good.open("rb") as old:
        save(synthetic(), good)
        assert old.read() == before
    assert load(good).digest == synthetic().digest


def test_invalid_trace_is_not_written(trace, tmp_path):
    ids = trace.expert_ids.copy()
    ids[0, 0, 1] = ids[0, 0, 0]
    with pytest.raises(SpecmdError, match="not written"):
        save(replace(trace, expert_ids=ids), tmp_path / "t.npz")
    assert list(tmp_path.iterdir()) == []


def test_save_into_missing_folder_or_onto_folder(trace, tmp_path):
    with pytest.raises(SpecmdError, match="folder does not exist"):
        save(trace, tmp_path / "none" / "t.npz")
    with pytest.raises(SpecmdError, match="is a directory"):
        save(trace, tmp_path)


def test_missing_directory_empty_and_text(tmp_path):
    assert "no such file" in error_of(tmp_path / "none.npz")
    assert "is a directory" in error_of(tmp_path)
    empty = tmp_path / "empty.npz"
    empty.touch()
    assert "empty" in error_of(empty)
    text = tmp_path / "text.npz"
    text.write_text("layer,expert\n0,1\n")
    assert "not an npz file" in error_of(text)


def test_fifo_does_not_hang(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no FIFOs")
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in error_of(tmp_path / "pipe")


def test_unreadable_file(good):
    good.chmod(0)
    if os.access(good, os.R_OK):
        pytest.skip("this user may read every file")
    assert "cannot be read" in error_of(good)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_truncated(good, share):
    data = good.read_bytes()
    good.write_bytes(data[: int(len(data) * share)])
    assert "truncated or damaged" in error_of(good)


def test_every_flipped_byte_of_a_member_is_noticed(trace, good):
    data = good.read_bytes()
    rng = np.random.default_rng(3)
    with zipfile.ZipFile(good) as archive:
        places = [(data_start(data, info), info.file_size) for info in archive.infolist()]
    for begin, size in places:
        for at in (begin, begin + int(rng.integers(size)), begin + size - 1):
            good.write_bytes(data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :])
            error_of(good)


def test_random_damage_never_surfaces_as_another_error(good):
    data = bytearray(good.read_bytes())
    rng = np.random.default_rng(11)
    messages = []
    for _ in range(300):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), size=3).tolist():
            broken[at] = int(rng.integers(256))
        if rng.random() < 0.5:  # the directory at the end is small and interesting
            broken[-int(rng.integers(1, 700))] ^= 0xFF
        good.write_bytes(broken)
        try:
            load(good)
        except SpecmdError as error:
            messages.append(str(error))
    assert len(messages) > 100
    assert all(str(good) in message for message in messages)


def test_npz_of_something_else(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, expert_ids=np.zeros((2, 2, 1), dtype=np.uint8))
    assert "no trace header" in error_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    assert "no trace header" in error_of(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": 3}, "newer"),
        ({"version": 0}, "version"),
        ({"version": "one"}, "version"),
        ({"schema": "other"}, "schema"),
        ({"num_layers": 99}, "expert_ids has shape"),
        ({"num_experts": 3}, "top_k 4 exceeds"),
        ({"num_experts": 5}, "say (30, 3, 2, 5)"),
        ({"num_experts": 1000}, "expert_ids is uint8, not uint16"),
        ({"num_experts": 10**9}, "num_experts"),
        ({"top_k": "x"}, "top_k"),
        ({"colour": "red"}, "colour"),
        ({"kind": "dreamt"}, "kind"),
    ],
)
def test_wrong_header(good, changes, expected):
    rewritten(good, header=header_of(good, **changes))
    assert expected in error_of(good)


def test_header_with_fewer_experts_than_the_ids(good):
    rewritten(good, header=header_of(good, num_experts=5), lookahead=None)
    assert "but a layer has 5 experts (0..4)" in error_of(good)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (np.frombuffer(b"{not json", dtype=np.uint8), "not valid JSON"),
        (np.frombuffer(b"\xff\xfe{}", dtype=np.uint8), "not valid JSON"),
        (np.frombuffer(b"[1, 2]", dtype=np.uint8), "schema"),
        (np.frombuffer(b"[" * 100_000, dtype=np.uint8), "not valid JSON"),
        (np.zeros(4, dtype=np.float32), "row of bytes"),
        (np.array("text"), "row of bytes"),
    ],
)
def test_garbage_header(good, header, expected):
    rewritten(good, header=header)
    assert expected in error_of(good)


def test_huge_header_is_refused(good, trace):
    rewritten(good, header=np.full(MAX_HEADER_BYTES + 1, ord(" "), dtype=np.uint8))
    assert "more than the 1,048,576 allowed" in error_of(good)
    long = trace.header.model_copy(update={"notes": "x" * MAX_HEADER_BYTES})
    with pytest.raises(SpecmdError, match="shorten notes"):
        save(replace(trace, header=long), good)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("expert_ids", lambda a: None, "'expert_ids' is missing"),
        ("step", lambda a: None, "'step' is missing"),
        ("expert_ids", lambda a: a.astype(np.int64), "expert_ids is int64"),
        ("expert_ids", lambda a: a[:-1], "step has shape"),
        ("expert_ids", lambda a: a[:0], "at least one token"),
        ("expert_ids", lambda a: a[0], "expert_ids has shape"),
        ("expert_ids", lambda a: np.where(a == a[2, 1, 0], 200, a).astype(np.uint8), "id 200"),
        ("expert_ids", lambda a: np.zeros_like(a), "lists an expert twice"),
        ("weights", lambda a: a.astype(np.float64), "weights is float64"),
        ("weights", lambda a: a[:, :, :2], "weights has shape"),
        ("weights", lambda a: a - 5, "gate weights must be finite"),
        ("weights", lambda a: a * np.float16(np.nan), "weight nan at token 0, layer 0"),
        ("weights", lambda a: np.full_like(a, np.inf), "weight inf"),
        ("step", lambda a: a + 1, "the first step is 1"),
        ("step", lambda a: a * 2, "goes from 0 to 2"),
        ("step", lambda a: a[::-1] - a[-1], "step"),
        ("step", lambda a: a.astype(np.int64), "step is int64"),
        ("request", lambda a: a - 1, "request -1 is out of range"),
        ("request", lambda a: a + 1, "request 3 is out of range"),
        ("request", lambda a: np.where(a == 1, 0, a).astype(np.int32), "without gaps"),
        ("phase", lambda a: a + np.uint8(2), "phase 2"),
        ("prompt_lengths", lambda a: a[:2], "out of range"),
        ("prompt_lengths", lambda a: a * 0 - 2, "prompt length -2"),
        ("prompt_lengths", lambda a: np.full(2**16, -1, dtype=np.int32), "without gaps"),
        ("lookahead", lambda a: a[:, :, :, :-1], "lookahead has shape"),
        ("lookahead", lambda a: a[:, :, 0], "lookahead has shape"),
        ("lookahead", lambda a: a.astype(np.float32), "lookahead is float32"),
    ],
)
def test_wrong_content(good, name, change, expected):
    array = change(members(good)[name])
    rewritten(good, **{name: array})
    assert expected in error_of(good)


def test_duplicates_are_found_wherever_they_are():
    for top_k in (2, 3, 8, 17, 20):
        rng = np.random.default_rng(top_k)
        ids = np.argsort(rng.random((9, 4, 40)), axis=2)[:, :, :top_k]
        build_trace(ids, num_experts=40)
        for _ in range(20):
            token, layer = int(rng.integers(9)), int(rng.integers(4))
            first, second = rng.choice(top_k, size=2, replace=False).tolist()
            wrong = ids.copy()
            wrong[token, layer, first] = wrong[token, layer, second]
            with pytest.raises(SpecmdError, match=f"token {token}, layer {layer} lists"):
                build_trace(wrong, num_experts=40)


def test_negative_zero_is_a_weight():
    trace = build_trace(np.zeros((2, 1)).astype(int), num_experts=1, weights=[[-0.0], [1.0]])
    assert trace.weights.shape == (2, 1, 1)


def test_pickled_array_is_refused_and_not_run(good, tmp_path):
    class Bomb:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "ran"),))

    arrays = members(good)
    arrays["token_ids"] = np.array([Bomb()], dtype=object)
    np.savez(good, **arrays)
    assert "holds pickled objects" in error_of(good)
    assert not (tmp_path / "ran").exists()


def test_zip_bomb_is_refused(good):
    arrays = members(good)
    with zipfile.ZipFile(good, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            array = np.zeros((1 << 27,), dtype=np.uint8) if name == "expert_ids" else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
    assert good.stat().st_size < 1 << 20
    assert "would unpack" in error_of(good)


def test_declared_shape_larger_than_the_data(good):
    arrays = members(good)
    liar = io.BytesIO()
    head = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 3, 4)}
    np.lib.format.write_array_header_1_0(liar, head)
    with zipfile.ZipFile(good, "w") as archive:
        for name, array in arrays.items():
            data = io.BytesIO()
            np.lib.format.write_array(data, array)
            content = liar if name == "expert_ids" else data
            archive.writestr(f"{name}.npy", content.getvalue())
    assert "declares shape" in error_of(good)


def test_member_twice(good):
    data = io.BytesIO()
    np.lib.format.write_array(data, np.zeros(3, dtype=np.uint8))
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(good, "a") as archive:
        archive.writestr("step.npy", data.getvalue())
    assert "occurs twice" in error_of(good)
