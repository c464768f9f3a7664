"""Reproducible chance: pseudo-random numbers from a counter, alike in every engine.

A 32-bit multiply-xorshift hash (the form of MurmurHash3's finaliser, A. Appleby, 2011) applied to
the words of a seed and a counter. No product reaches 2**63: compiled integers would overflow there,
and Python's would not.
"""

from __future__ import annotations

MASK = 0xFFFFFFFF


def scramble(x: int) -> int:
    """Hash 32 bits into 32 bits, one to one."""
    x &= MASK
    x = ((x ^ (x >> 16)) * 0x45D9F3B) & MASK
    x = ((x ^ (x >> 15)) * 0x2C1B3C6D) & MASK
    return x ^ (x >> 16)


def mix(a: int, b: int) -> int:
    """Hash two non-negative integers below 2**63 into 0..2**32-1."""
    h = scramble(a ^ 0x9E3779B9)
    h = scramble(h ^ (a >> 32))
    h = scramble(h + b)
    return scramble(h ^ (b >> 32))


def below(bound: int, a: int, b: int) -> int:
    """Draw an integer in 0..bound-1, bound < 2**31, from a seed and a counter."""
    return (mix(a, b) * bound) >> 32


def fraction(a: int, b: int) -> float:
    """Draw a number in [0, 1) from a seed and a counter."""
    return mix(a, b) / 4294967296.0
