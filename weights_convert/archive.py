"""The zip container of `torch.save`: stored entries as views of the file, checked by CRC-32."""

import struct
import zlib
from dataclasses import dataclass

from jaxcrop.errors import MalformedError
from jaxcrop.weights.safetensors import release

_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_MAX_COMMENT = 1 << 16
_MAX_ENTRIES = 50_000
_IN_EXTRA_FIELD = 0xFFFFFFFF  # "see the zip64 extra field"
_ZIP64_FIELD = 1


@dataclass(frozen=True)
class _Entry:
    """Where the bytes of an entry lie, and how they were written."""

    name: bytes
    header: int
    size: int
    crc: int
    stored: bool


class Archive:
    """The entries of a zip file held in `buffer`, which is never inflated and never copied.

    Raises MalformedError (struct.error, UnicodeDecodeError), here and in `read`, for whatever the
    buffer does not bear out.
    """

    def __init__(self, buffer: memoryview):
        self._buffer = buffer
        self._entries: dict[str, _Entry] = {}
        self._read: dict[str, memoryview] = {}
        count, position = _directory(buffer)
        for _ in range(count):
            entry, position = _entry(buffer, position)
            name = entry.name.decode()
            if name in self._entries:
                raise MalformedError(f"its archive holds two entries named {name}")
            self._entries[name] = entry
        # Else a file of many entries over the same bytes would take hours to check.
        if sum(entry.size for entry in self._entries.values() if entry.stored) > len(buffer):
            raise MalformedError("the entries of its archive overlap")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all entries, in the order of the archive's directory."""
        return tuple(self._entries)

    def read(self, name: str) -> memoryview:
        """The bytes of the entry `name`, checked once against its CRC-32."""
        if name not in self._read:
            self._read[name] = self._view(name)
        return self._read[name]

    def _view(self, name: str) -> memoryview:
        if name not in self._entries:
            raise MalformedError(f"its archive lacks the entry {name}")
        entry = self._entries[name]
        if not entry.stored:
            raise MalformedError(f"its entry {name} is compressed, as torch.save never writes it")
        signature, *_, name_size, extra_size = _LOCAL.unpack_from(self._buffer, entry.header)
        name_start = entry.header + _LOCAL.size
        start = name_start + name_size + extra_size
        if (
            signature != b"PK\3\4"
            or self._buffer[name_start : name_start + name_size] != entry.name
            or start + entry.size > len(self._buffer)
        ):
            raise MalformedError(f"its entry {name} does not lie where the archive says")
        view = self._buffer[start : start + entry.size]
        # PyTorch may be told to skip the checksums, and then writes zeros.
        if entry.crc not in (0, zlib.crc32(view)):
            raise MalformedError(f"the checksum of its entry {name} does not match")
        release(view)
        return view


def _directory(buffer: memoryview) -> tuple[int, int]:
    """Number of entries and position of the central directory."""
    tail_start = max(len(buffer) - _END.size - _MAX_COMMENT, 0)
    end = bytes(buffer[tail_start:]).rfind(b"PK\5\6")
    if end < 0:
        raise MalformedError("its archive has no directory at its end, so it was cut off")
    end += tail_start
    _, _, _, _, count, size, offset, _ = _END.unpack_from(buffer, end)
    locator = end - _LOCATOR_64.size
    if locator >= 0 and buffer[locator : locator + 4] == b"PK\6\7":
        _, _, end_64, _ = _LOCATOR_64.unpack_from(buffer, locator)
        if end_64 > locator or buffer[end_64 : end_64 + 4] != b"PK\6\6":
            raise MalformedError("the directory of its archive is damaged")
        *_, count, size, offset = _END_64.unpack_from(buffer, end_64)
    if offset + size > end or count * _ENTRY.size > size:
        raise MalformedError("the directory of its archive is damaged")
    if count > _MAX_ENTRIES:
        raise MalformedError(f"its archive has {count} entries, more than any checkpoint's")
    return count, offset


def _entry(buffer: memoryview, position: int) -> tuple[_Entry, int]:
    """The directory entry at `position`, and the position after it."""
    fields = _ENTRY.unpack_from(buffer, position)
    signature, _, _, flags, method, _, _, crc = fields[:8]
    packed, size, name_size, extra_size, comment_size = fields[8:13]
    header = fields[-1]
    if signature != b"PK\1\2":
        raise MalformedError("the directory of its archive is damaged")
    name_start = position + _ENTRY.size
    extra_start = name_start + name_size
    extra_end = extra_start + extra_size
    name = bytes(buffer[name_start:extra_start])
    wide = [value for value in (size, packed, header) if value == _IN_EXTRA_FIELD]
    if wide:
        found = iter(_zip64_values(buffer[extra_start:extra_end], len(wide)))
        size, packed, header = (
            next(found) if value == _IN_EXTRA_FIELD else value for value in (size, packed, header)
        )
    stored = method == 0 and packed == size and not flags & 1  # bit 0: encrypted
    return _Entry(name, header, size, crc, stored), extra_end + comment_size


def _zip64_values(extra: memoryview, count: int) -> tuple[int, ...]:
    """The first `count` 64-bit values of the zip64 extra field."""
    position = 0
    while position < len(extra):
        kind, size = struct.unpack_from("<2H", extra, position)
        if kind == _ZIP64_FIELD and size >= 8 * count:
            return struct.unpack_from(f"<{count}Q", extra, position + 4)
        position += 4 + size
    raise MalformedError("the directory of its archive is damaged")
