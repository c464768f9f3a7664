"""Published rows: what a file may say, and that every committed row is valid and sourced."""

from pathlib import Path

import pytest

from specmd.board.rows import by_group, load_rows, read_rows
from specmd.errors import SpecmdError
from specmd.hardware.profile import load_profile
from specmd.hardware.shape import load_shape

TINY = """
schema = 1

[[group]]
id = "made-up"
engine = "nobody's"
source = "https://example.org/board"
read = "the table above"
date = 2026-11-25
model = "a model of 8 experts"
shape = "mixtral-8x7b"
expert_bytes = 50_000_000
expert_bytes_from = "made up"
machine = "a T4"
device = "t4"
tier = "ram"
kernels = "eager"
tokens = 40

[[group.row]]
id = "made-up-all"
capacity = "all"
tokens_per_s = 20.0
anchor = "resident"

[[group.row]]
id = "made-up-half"
capacity = "4/layer"
scope = "layer"
seconds_per_token = 0.2
hit_rate = 0.7
"""


def test_a_group_speaks_for_its_rows_unless_they_say_otherwise(write):
    first, second = read_rows(write(TINY))
    assert (first.group, first.device, first.scope) == ("made-up", "t4", "global")
    assert (second.device, second.scope, second.anchor) == ("t4", "layer", "none")


def test_times_are_seconds_whichever_way_they_are_published(write):
    first, second = read_rows(write(TINY))
    assert (first.measured_tpot_s, second.measured_tpot_s) == (0.05, 0.2)


def test_a_batch_makes_several_tokens_a_step(write):
    first, _ = read_rows(write(TINY.replace('tier = "ram"', 'tier = "ram"\nbatch = 4')))
    assert first.measured_tpot_s == 4 / 20.0


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("tokens = 40", "tokns = 40", "tokns: Extra inputs"),
        ("schema = 1", "schema = 2", "schema is 2, must be 1"),
        ("[[group]]", "[about]\n[[group]]", "no 'about' beside schema and group"),
        ("tokens_per_s = 20.0", "", "give tokens_per_s or seconds_per_token"),
        ("tokens_per_s = 20.0", "tokens_per_s = 20.0\nseconds_per_token = 0.05", "not both"),
        ("tokens_per_s = 20.0", "tokens_per_s = 0.0", "greater than 0"),
        ('source = "https', 'source = "ftp', "source: String should match"),
        ('expert_bytes_from = "made up"', "", "expert_bytes_from must say"),
        ('tier = "ram"', 'tier = "tape"', "tier: Input should be"),
        ('capacity = "all"', 'capacity = "7"', "an anchor 'resident' has capacity 'all'"),
        ('anchor = "resident"', 'anchor = "no_cache"', "'no_cache' has capacity 'none'"),
        ('anchor = "resident"', 'anchor = "resident"\ncannot = "no"', "is no anchor"),
        ("hit_rate = 0.7", "hit_rate = 70.0", "hit_rate: Input should be less than"),
        ('machine = "a T4"', 'machine = "a T4"\nlink_bytes_per_s = 1e9', "go together"),
        ("date = 2026-11-25", 'date = "lately"', "date: Input should be"),
        ("[[group.row]]", "[[group.line]]", "line: Extra inputs|holds no row"),
    ],
)
def test_what_is_wrong_is_named_with_its_file(write, old, new, says):
    assert old in TINY
    with pytest.raises(SpecmdError, match=says) as caught:
        read_rows(write(TINY.replace(old, new)))
    assert "made_up.toml" in str(caught.value)


def test_ids_are_unique_and_anchors_two(write, tmp_path: Path):
    write(TINY.replace("made-up-half", "made-up-all"))
    with pytest.raises(SpecmdError, match="'made-up-all' is there twice"):
        load_rows(tmp_path)
    more = "".join(
        f'\n[[group.row]]\nid = "more-{n}"\ncapacity = "1/layer"\ntokens_per_s = 1.0\n'
        'anchor = "other"\n'
        for n in range(2)
    )
    write(TINY + more)
    with pytest.raises(SpecmdError, match="has 3 anchors, may have 2"):
        load_rows(tmp_path)


def test_a_group_can_be_like_a_group_only(write, tmp_path: Path):
    write(TINY.replace('tier = "ram"', 'tier = "ram"\nlike = "nothing"'))
    with pytest.raises(SpecmdError, match="like = 'nothing' is no group"):
        load_rows(tmp_path)


def test_rows_are_chosen_by_row_and_by_group(write, tmp_path: Path):
    write(TINY)
    assert [row.id for row in load_rows(tmp_path, "*-half")] == ["made-up-half"]
    assert len(load_rows(tmp_path, "made-up")) == 2
    with pytest.raises(SpecmdError, match="no published row or group matches 'nobody'"):
        load_rows(tmp_path, "nobody")


def test_an_empty_folder_is_an_error(tmp_path: Path):
    with pytest.raises(SpecmdError, match=r"holds no \.toml file"):
        load_rows(tmp_path)


def test_at_least_sixty_rows_are_shipped_and_all_are_sourced():
    rows = load_rows()
    assert len(rows) >= 60
    for row in rows:
        assert row.source.startswith("https://"), row.id
        assert len(row.read) >= 5, row.id
        if row.link_kind is not None:
            assert len(row.link_from) >= 5, row.id


def test_what_the_shipped_rows_name_is_there():
    for row in load_rows():
        if row.shape is not None:
            load_shape(row.shape)
        if row.device is not None:
            load_profile(row.device)


def test_at_least_sixty_shipped_rows_are_not_written_off():
    assert sum(not row.cannot for row in load_rows()) >= 60


def test_groups_keep_the_order_of_their_rows():
    rows = load_rows()
    assert [row.id for group in by_group(rows).values() for row in group] == [r.id for r in rows]
