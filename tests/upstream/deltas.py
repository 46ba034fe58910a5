"""Numbered, checksummed pieces of text: a reader can tell loss, repetition, disorder and mixing up.

The piece ``index`` of the stream ``tag`` is the index and a CRC of both; nothing else is needed to
check any prefix of the stream.
"""

from binascii import crc32

# Bytes of one, two, three and four of UTF-8.
_WIDE = "~é中🙂"


def delta(tag: str, index: int, *, wide: bool = False) -> str:
    """Return one piece; ``wide`` ends it with characters of several bytes."""
    return f"{index} {crc32(f'{tag}:{index}'.encode()):08x}{_WIDE if wide else ''}\n"


def whole(tag: str, count: int, *, wide: bool = False) -> str:
    """Return the first ``count`` pieces."""
    return "".join(delta(tag, index, wide=wide) for index in range(count))


def counted(tag: str, text: str, *, wide: bool = False) -> int:
    """Return how many whole pieces ``text`` is. Raises AssertionError where it is anything else:
    something lost, repeated, garbled or of another stream."""
    lines = text.splitlines(keepends=True)
    for index, line in enumerate(lines):
        expected = delta(tag, index, wide=wide)
        assert line == expected, f"piece {index} of {tag!r} is {line!r}, not {expected!r}"
    return len(lines)
