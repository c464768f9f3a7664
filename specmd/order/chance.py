"""Reproducible chance: pseudo-random numbers from a counter, alike in every engine.

A multiply-xorshift mix of 63 bits (after Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014). Products are cut to their low 63 bits, which Python's integers
and numba's wrapping ones agree on.
"""

from __future__ import annotations

MASK = 0x7FFFFFFFFFFFFFFF


def mix(a: int, b: int) -> int:
    """Hash two integers into 0..2**63-1."""
    x = ((a ^ 0x1E3779B97F4A7C15) * 0x3F58476D1CE4E5B9 + b) & MASK
    x = ((x ^ (x >> 30)) * 0x14D049BB133111EB) & MASK
    x = ((x ^ (x >> 27)) * 0x2545F4914F6CDD1D) & MASK
    return x ^ (x >> 31)


def below(bound: int, a: int, b: int) -> int:
    """Draw an integer in 0..bound-1 from a seed and a counter; the bias is below 2**-30."""
    return (mix(a, b) >> 31) % bound


def fraction(a: int, b: int) -> float:
    """Draw a number in [0, 1) from a seed and a counter."""
    return (mix(a, b) >> 10) / 9007199254740992.0
