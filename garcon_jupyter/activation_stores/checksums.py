"""CRC-32 of a whole from those of its parts, so that parts can be read by several processes.

The checksum of a then b is that of a, taken on over as many zeros as b has bytes, exclusive or that of b. Taking it on is linear
over the field of two elements: a matrix of 32 bits, whose powers double the number of zeros (as in zlib's ``crc32_combine``,
which Python does not have).
"""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0xEDB88320

Matrix = tuple[int, ...]


def combined(first: int, second: int, length: int) -> int:
    """CRC-32 of two pieces, one after the other.

    Args:
        first, second: of each.
        length: bytes of the second.
    """
    power = 0
    while length:
        if length & 1:
            first = _times(_zeros(power), first)
        length >>= 1
        power += 1
    return first ^ second


@cache
def _zeros(power: int) -> Matrix:
    """What 2**power zero bytes do to a checksum."""
    if power == 0:
        bit: Matrix = (_POLYNOMIAL, *(1 << n for n in range(31)))
        for _ in range(3):
            bit = _squared(bit)
        return bit
    return _squared(_zeros(power - 1))


def _squared(matrix: Matrix) -> Matrix:
    return tuple(_times(matrix, column) for column in matrix)


def _times(matrix: Matrix, vector: int) -> int:
    found, at = 0, 0
    while vector:
        if vector & 1:
            found ^= matrix[at]
        vector >>= 1
        at += 1
    return found
