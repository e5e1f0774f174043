"""Zips from elsewhere: unpacked whole or not at all, and one clear line about each that is refused."""

import io
import stat
import struct
import zipfile

import pytest

from mogle.assets.archive import unpack
from mogle.errors import MogleError


def packed(path, *entries):
    """A zip of (name or ZipInfo, bytes)."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in entries:
            made.writestr(name, data)
    return path


def info(name, mode=0):
    made = zipfile.ZipInfo(name)
    made.external_attr, made.compress_type = mode << 16, zipfile.ZIP_DEFLATED
    return made


def test_what_is_in_a_good_zip_is_unpacked(tmp_path):
    path = packed(tmp_path / "a.zip", ("set/face/", b""), ("set/face/0.jpg", b"x" * 9), ("set/é/ü.txt", "ä".encode()))
    unpack(path, tmp_path / "out")
    found = {p.relative_to(tmp_path / "out").as_posix(): p.read_bytes() for p in tmp_path.rglob("out/**/*.*")}
    assert found == {"set/face/0.jpg": b"x" * 9, "set/é/ü.txt": "ä".encode()}


def test_utf8_names_without_the_flag_are_understood(tmp_path):
    (tmp_path / "a.zip").write_bytes(unflagged(packed(tmp_path / "b.zip", ("bücher.txt", b"x")).read_bytes()))
    unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["bücher.txt"]


def unflagged(data: bytes) -> bytes:
    """The same zip with the flag for UTF-8 taken away."""
    out = bytearray(data)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(mark)
        while at >= 0:
            flags = struct.unpack_from("<H", out, at + offset)[0]
            struct.pack_into("<H", out, at + offset, flags & ~0x800)
            at = data.find(mark, at + 4)
    return bytes(out)


def overlapping(path, copies=40):
    """A zip whose directory lists the same bytes again and again: no entry is large, all together are."""
    data = packed(path, ("0.bin", b"\0" * (1 << 20))).read_bytes()
    end = data.rfind(b"PK\x05\x06")
    start = struct.unpack_from("<I", data, end + 16)[0]
    entry = data[start:end]
    entries = b"".join(entry.replace(b"0.bin", f"{i:05d}".encode()) for i in range(copies))
    tail = bytearray(data[end:])
    struct.pack_into("<HHI", tail, 8, copies, copies, len(entries))
    path.write_bytes(data[:start] + entries + tail)


BAD = {
    "escape": (lambda p: packed(p, ("ok.txt", b"x"), ("../evil.txt", b"x")), "'../evil.txt' leads out"),
    "inner escape": (lambda p: packed(p, ("a/../../evil.txt", b"x")), "'a/../../evil.txt' leads out"),
    "absolute": (lambda p: packed(p, ("/etc/evil", b"x")), "'/etc/evil' leads out"),
    "drive": (lambda p: packed(p, ("C:/evil", b"x")), "'C:/evil' leads out"),
    "backslash": (lambda p: packed(p, ("..\\evil", b"x")), r"leads out"),
    "link": (lambda p: packed(p, (info("face", stat.S_IFLNK | 0o777), b"/etc")), "'face' is a link"),
    "device": (lambda p: packed(p, (info("pipe", stat.S_IFIFO), b"")), "'pipe' is neither file nor folder"),
    "bomb": (lambda p: packed(p, ("big.bin", b"\0" * (4 << 20))), "'big.bin' would unpack from .* bomb"),
    "overlap": (overlapping, "would unpack to 41,943,040 bytes"),
    "duplicate": (lambda p: packed(p, ("a.txt", b"1"), ("a.txt", b"2")), "'a.txt' is there twice"),
    "case": (lambda p: packed(p, ("a.txt", b"1"), ("A.TXT", b"2")), "'A.TXT' is there twice"),
    "file as folder": (lambda p: packed(p, ("a", b"1"), ("a/b", b"2")), "'a/b' is there twice"),
    "folder as file": (lambda p: packed(p, ("a/b", b"1"), ("a", b"2")), "'a' is there twice"),
    "latin-1": (lambda p: latin(p), r"b'b\\xfccher.txt' in it is not UTF-8"),
    "flagged latin-1": (lambda p: latin(p, flag=True), r"b'b\\xfccher.txt' in it is not UTF-8"),
    "empty": (lambda p: p.write_bytes(b""), "no zip"),
    "no zip": (lambda p: p.write_bytes(b"<html>not found</html>"), "no zip"),
    "cut off": (lambda p: p.write_bytes(packed(p, ("a.txt", b"x" * 999)).read_bytes()[:80]), "no zip"),
    "wrong byte": (lambda p: damaged(p), "'b.bin' is damaged"),
    "encrypted": (lambda p: encrypted(p), "'a.txt' is encrypted"),
}


def latin(path, flag=False):
    data = packed(path, ("bücher.txt", b"x")).read_bytes().replace("bü".encode(), b"b\xfc")
    # one byte shorter: lengths of names, and where the directory starts
    out = bytearray(data if flag else unflagged(data))
    for mark, offset in ((b"PK\x03\x04", 26), (b"PK\x01\x02", 28)):
        at = out.find(mark)
        struct.pack_into("<H", out, at + offset, 10)
    end = out.rfind(b"PK\x05\x06")
    size, start = struct.unpack_from("<II", out, end + 12)
    struct.pack_into("<II", out, end + 12, size - 1, start - 1)
    path.write_bytes(out)


def damaged(path):
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("a.txt", b"fine")
        made.writestr("b.bin", b"x" * 5000)
    data = bytearray(path.read_bytes())
    data[data.find(b"xxxx") + 100] ^= 1
    path.write_bytes(data)


def encrypted(path):
    data = bytearray(packed(path, ("a.txt", b"x")).read_bytes())
    data[6] |= 1
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", BAD)
def test_bad_zips_are_refused_with_a_line_that_names_them(tmp_path, kind):
    make, message = BAD[kind]
    folder = tmp_path / "in"
    folder.mkdir()
    make(folder / "bad.zip")
    with pytest.raises(MogleError, match=message) as error:
        unpack(folder / "bad.zip", folder / "out")
    assert "bad.zip" in str(error.value) and "\n" not in str(error.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", "bad.zip"]


def test_no_byte_changed_anywhere_gets_through_or_shows_a_traceback(tmp_path):
    """Whatever byte is wrong, the zip is unpacked with the right contents or refused."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("face/0.txt", b"hello " * 20)
    data, path = buffer.getvalue(), tmp_path / "a.zip"
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x5A
        path.write_bytes(broken)
        try:
            unpack(path, tmp_path / "out" / str(at))
        except MogleError as error:
            assert "a.zip" in str(error)
            assert not (tmp_path / "out" / str(at)).exists()
        else:
            assert all(p.read_bytes() == b"hello " * 20 for p in (tmp_path / "out" / str(at)).rglob("*.*"))
