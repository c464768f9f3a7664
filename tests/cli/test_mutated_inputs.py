"""Mutated profiles, traces and command lines: each is used, or refused in one line.

A few hundred of each kind by default; `pytest tests/cli/test_mutated_inputs.py --fuzz 20000` tries
more. A case depends on its number alone.
"""

import io
import json
import random
import struct
import zipfile
from importlib.resources import files

import numpy as np
import pytest

from specmd.trace import save, synthetic

VALUES = [
    *("true", "false", "inf", "-inf", "nan", "-1", "0", "1e400", "1e-400", "9" * 30, "''", "[]"),
    *("{}", "[1, 2]", "'x'", "1979-05-27", "0x10", "1_000", '"\\u0000"', "[[[[]]]]", '"🜲"'),
]
WORDS = [
    *("", "-", "--", "lru", "lru:", "lru:=", "lru:x=1", ":", "a:b=c,d", "5%", "0", "-5%", "1e9%"),
    *("51", "4/layer", "0/layer", "9" * 40, "0.6GB", "GB", "%", "nan", "inf", "true", "none"),
    *("global", "layer", "rtx4090", "h100", "no/such.toml", ".", "..", "/", "\x07", "é", "🜲", "'"),
    *("oracle", "next_gate:depth=99", "random:width=0", "slru:protected=nan", "lrfu:decay=inf"),
    *("lrfu:decay=1e999", "priority", "overlap", "forced", "bypass", "request", "1/1", "0/0"),
]
OPTIONS = [
    *("-e", "-p", "-c", "--schedule", "--miss", "--route", "--allocate", "--profile", "--shape"),
    *("--scope", "--admission", "--reset", "--warmup", "--tokens", "--seed", "--training"),
    *("--plugin", "--metric", "--shard", "--config", "--format", "--no-bounds", "--sequential"),
    *("--nonsense", "-x", "--help", "--evict=lru", "--capacity="),
]


@pytest.fixture
def refused_or_used(specmd, tmp_path, monkeypatch, request):
    """Call the command line with each mutant; it must come to an end that is said in a line."""
    monkeypatch.chdir(tmp_path)

    def check(kind, mutate):
        codes = set()
        for number in range(request.config.getoption("--fuzz")):
            chance = random.Random(f"{kind} {number}")
            argv = mutate(chance)
            done = specmd(*argv)
            where = f"{kind} {number}: {argv!r}: {done.code}: {done.err}"
            assert done.code in (0, 2), where
            errors = [line for line in done.err.splitlines() if line.startswith("specmd: error")]
            assert len(errors) == (done.code == 2), where
            assert "internal error" not in done.err, where
            assert "Traceback" not in done.err, where
            assert done.code or len(done.err) < 2000, where
            codes.add(done.code)
        return codes

    return check


def test_profiles(refused_or_used, tmp_path):
    lines = (files("specmd.hardware_profiles") / "rtx4090.toml").read_text("utf-8").splitlines()

    def mutate(chance):
        mutant = list(lines)
        for _ in range(chance.choice((1, 1, 2, 5))):
            at = chance.randrange(len(mutant))
            name = mutant[at].partition("=")[0]
            mutant[at] = chance.choice(
                (
                    f"{name}= {chance.choice(VALUES)}",
                    "",
                    mutant[at][: chance.randrange(len(mutant[at]) + 1)],
                    mutant[at] + "\n" + mutant[at],
                    f"{chance.choice(VALUES)} = {chance.choice(VALUES)}",
                    f"[{chance.choice(('host_link', 'stack', 'ssd', 'x', ''))}]",
                )
            )
        for number, line in enumerate(mutant):
            if "value" in line and chance.random() < 0.03:
                mutant[number] = line.partition("=")[0] + "= " + chance.choice(VALUES)
        path = tmp_path / "mutant.toml"
        path.write_text("\n".join(mutant), encoding="utf-8")
        return ("validate", "profile", path)

    assert refused_or_used("profile", mutate) == {0, 2}


def test_every_value_of_a_profile(specmd, tmp_path):
    source = (files("specmd.hardware_profiles") / "rtx4090.toml").read_text("utf-8").splitlines()
    path = tmp_path / "mutant.toml"
    numbers = [number for number, line in enumerate(source) if line.startswith("value = ")]
    assert len(numbers) > 8
    refused = set()
    for at in numbers:
        for value in ("true", "inf", "nan", "-1", '"1"', "[]"):
            path.write_text("\n".join([*source[:at], f"value = {value}", *source[at + 1 :]]))
            done = specmd("validate", "profile", path)
            assert done.code == 2 or value == "inf", (source[at], value)
            assert "internal error" not in done.err, (source[at], value)
            if value == "inf" and done.code == 2:
                refused.add(next(line for line in reversed(source[:at]) if line.startswith("[")))
    assert "[host_link.chunk_bytes]" in refused


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    made = synthetic(
        num_requests=2, prompt_length=3, decode_length=4, lookahead_depth=1, expert_bytes=100
    )
    return save(made, tmp_path_factory.mktemp("mutants") / "whole.npz").read_bytes()


def members_of(content):
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def npy(header, data, version=b"\x01\x00"):
    text = header.encode("latin-1", "replace")
    size = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + size + text + data


def test_bytes_of_a_trace(refused_or_used, tmp_path, whole):
    def mutate(chance):
        mutant = bytearray(whole)
        for _ in range(chance.choice((1, 2, 20))):
            at = chance.randrange(len(mutant))
            mutant[at] = chance.choice((0, 255, chance.randrange(256)))
        if chance.random() < 0.2:
            del mutant[chance.randrange(len(mutant)) :]
        path = tmp_path / "mutant.npz"
        path.write_bytes(mutant)
        return chance.choice((("inspect", path), ("validate", "trace", path)))

    assert 2 in refused_or_used("bytes", mutate)


def test_headers_of_the_members_of_a_trace(refused_or_used, tmp_path, whole):
    pieces = ["(", "[", "{", "'", "\\", "#", "\n", "9" * 400, "10L", "1e999", "-1", "None", "\x00"]

    def mutate(chance):
        members = members_of(whole)
        name = chance.choice(list(members))
        start = 10 + struct.unpack("<H", members[name][8:10])[0]
        text = members[name][10:start].decode("latin-1")
        for _ in range(chance.choice((1, 1, 3))):
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(pieces) + text[at + chance.choice((0, 1, 5)) :]
        version = chance.choice((b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x09\x00"))
        members[name] = npy(text, members[name][start:], version)
        return ("inspect", written(tmp_path / "mutant.npz", members))

    assert 2 in refused_or_used("members", mutate)


def test_a_broken_literal_in_the_header_of_a_member(specmd, tmp_path, whole):
    members = members_of(whole)
    for header in ("{'descr': '|u1', 'shape': (3,", "'" * 3, "(" * 5000, "{[]: 1}", "\x00"):
        members["layer.npy"] = npy(header, b"abc")
        done = specmd("inspect", written(tmp_path / "mutant.npz", members))
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
        assert "mutant.npz: damaged" in done.err


def test_fields_and_arrays_of_a_trace(refused_or_used, tmp_path, whole):
    values = [None, True, -1, 0, 1.5, 1e300, 2**70, "", "x", [], {}, [[]], {"a": float("inf")}]

    def mutate(chance):
        members = members_of(whole)
        fields = json.loads(np.load(io.BytesIO(members["header.npy"])).tobytes())
        for _ in range(chance.choice((0, 1, 2))):
            fields[chance.choice([*fields, "x"])] = chance.choice(values)
        fields["digest"] = ""
        arrays = {"header": np.frombuffer(json.dumps(fields).encode(), np.uint8)}
        for name in sorted(members.keys() - {"header.npy"}):
            array = np.load(io.BytesIO(members[name]))
            if chance.random() < 0.2:
                change = chance.randrange(5)
                if change == 0 and array.size:
                    at = tuple(chance.randrange(size) for size in array.shape)
                    array[at] = chance.choice((0, 1, array.max()))
                elif change == 1:
                    with np.errstate(all="ignore"):
                        array = array.astype(chance.choice("?bBhiIqQefdFUM"))
                elif change == 2:
                    array = array[: chance.randrange(len(array) + 1)]
                elif change == 3:
                    array = array.reshape(-1)
                else:
                    array = array[None]
            arrays[name.removesuffix(".npy")] = array
        np.savez(tmp_path / "mutant.npz", **arrays)
        return chance.choice(
            (("inspect", tmp_path / "mutant.npz"), ("validate", "trace", tmp_path / "mutant.npz"))
        )

    assert refused_or_used("fields", mutate) == {0, 2}


def test_command_lines(refused_or_used, tmp_path, whole):
    (tmp_path / "t.npz").write_bytes(whole)
    (tmp_path / "e.toml").write_text('traces = ["t.npz"]\n')
    starts = [
        *[("sweep", "--dry-run", "t.npz")] * 6,
        *(("sweep", "--dry-run"), ("sweep", "--dry-run", "--config", "e.toml"), ("list",)),
        *(("list", "policies"), ("list", "profiles"), ("list", "metrics"), ("inspect",)),
        *(
            ("inspect", "t.npz"),
            ("validate",),
            ("validate", "trace"),
            ("import",),
            ("import", "t.npz"),
        ),
        *(("validate", "config"), ("env",), (), ("simulat",)),
    ]

    def mutate(chance):
        argv = list(chance.choice(starts))
        for _ in range(chance.randrange(4)):
            argv.append(chance.choice(OPTIONS))
            if chance.random() < 0.8:
                argv.append(chance.choice(WORDS))
        if chance.random() < 0.2:
            argv.append(chance.choice(WORDS))
        return tuple(argv)

    assert refused_or_used("command", mutate) == {0, 2}
