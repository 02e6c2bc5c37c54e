"""Formats of archives and compressed files that are recognised and not read, and what to do about each."""

from __future__ import annotations

HEAD = 8
"""Bytes at the beginning of a file that `unread_format` wants."""

_UNREAD: tuple[tuple[bytes, str, str], ...] = (
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "7z x {name}"),
    (b"Rar!\x1a\x07", "a RAR archive", "unrar x {name}"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by zstd", "zstd -dc {name} | tar -x"),
    (b"\x04\x22\x4d\x18", "a file compressed by lz4", "lz4 -dc {name} | tar -x"),
    (b"LZIP", "a file compressed by lzip", "lzip -dc {name} | tar -x"),
    (b"\x5d\x00\x00", "a file compressed by lzma", "xz --format=lzma -dc {name} | tar -x"),
    (b"\x1f\x9d", "a file compressed by compress", "gzip -dc {name} | tar -x"),
    (b"\x89LZO\0\r\n\x1a", "a file compressed by lzop", "lzop -dc {name} | tar -x"),
    (b"070701", "a cpio archive", "cpio -id < {name}"),
    (b"070707", "a cpio archive", "cpio -id < {name}"),
    (b"!<arch>\n", "an ar archive", "ar x {name}"),
    (b"MSCF\0\0\0\0", "a CAB archive", "cabextract {name}"),
    (b"xar!", "a xar archive", "xar -xf {name}"),
    (b"PK\x07\x08", "the first part of a split zip", "7z x {name}"),
    (b"PK00PK", "the first part of a split zip", "7z x {name}"),
)  # fmt: skip
"""What a file begins with, what it is, and a command that unpacks it."""


def unread_format(head: bytes, name: str) -> tuple[str, str] | None:
    """What a file of that name is by its first HEAD bytes, and a command that unpacks it; None if it is none of these.

    zip, tar, gzip, bzip2 and xz are none of them: `archive_members` reads these.
    """
    for magic, kind, command in _UNREAD:
        if head.startswith(magic):
            return kind, command.format(name=name)
    return None
