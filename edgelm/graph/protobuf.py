"""Writes the wire format of protocol buffers, as far as an ONNX file needs it.

A message is the bytes of its fields one after another; each field is a tag, which holds its number and its kind, and a
value (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import struct

VARINT, BYTES, FIXED32 = 0, 2, 5


def varint(value: int) -> bytes:
    """A whole number, seven bits a byte, the least first; negative ones as 64 bits in two's complement."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def number(field: int, value: int) -> bytes:
    """A field that holds a whole number."""
    return varint(field << 3 | VARINT) + varint(value)


def message(field: int, value: bytes) -> bytes:
    """A field that holds a message, or bytes."""
    return varint(field << 3 | BYTES) + varint(len(value)) + value


def text(field: int, value: str) -> bytes:
    """A field that holds a text."""
    return message(field, value.encode())


def real(field: int, value: float) -> bytes:
    """A field that holds a float32."""
    return varint(field << 3 | FIXED32) + struct.pack("<f", value)
