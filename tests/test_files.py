"""Files are written in full or not at all."""

import pytest

from mogle.files import atomic_write


def test_the_name_appears_only_when_the_file_is_whole(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path) as part:
        part.write_text("half")
        assert not path.exists() and part.parent == path.parent and part.suffix == ".part"
        part.write_text("whole")
    assert path.read_text() == "whole" and path.stat().st_mode & 0o777 == 0o644
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path) as part:
        part.write_text("new")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_two_writers_of_one_name_do_not_meet(tmp_path):
    path = tmp_path / "a.txt"
    with atomic_write(str(path)) as first, atomic_write(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first", "the outer one is moved last"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_replaces_its_file_keeps_the_permissions(tmp_path):
    with atomic_write(tmp_path / "a.txt") as part:
        part.unlink()
        part.touch(0o600)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644
