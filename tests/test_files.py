"""A file is written whole or not at all, whatever goes wrong, and says so with an exit code."""

import errno
import os

import pytest

from specmd.errors import Exit, SpecmdError
from specmd.files import replacing, write_text


def full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_folders_are_made_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "a" / "b.txt"
    write_text(path, "é")
    write_text(path, "second")
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "b.txt"
    write_text(path, "before")
    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(SpecmdError, match=r"b\.txt: cannot be written: No space left") as error:
        write_text(path, "after")
    assert error.value.code == Exit.NOT_WRITTEN
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / "b.txt"
    write_text(path, "before")
    with pytest.raises(TypeError), replacing(path) as file:
        file.write(b"half" + None)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_not_a_file(tmp_path):
    with pytest.raises(SpecmdError, match="is a directory"):
        write_text(tmp_path, "text")
