"""Chance that belongs to a request and a token alone: a number for each token id from one key.

Who else is in the batch, how many candidates a token has beside it and in which order they stand
change nothing, and a GPU's numbers are a CPU's. A number is made only for the ids that come into
question, for all requests of a batch at once; torch's generators know no such thing, and to fill a
vocabulary of 150,000 in their order takes four times as long on a CPU.

The numbers are those of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", 2014), of which the n-th can be had without those before it.
"""

import secrets

import torch

_GAMMA, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 2**64
_HALF = 2**63
# No exponential number is 0 or endless: each token that has a chance keeps one.
_LEAST, _MOST = 2.0**-63, 1 - 2.0**-24


class Chance:
    """A request's own source of keys, one a token."""

    __slots__ = ("_state",)

    def __init__(self, seed: int | None) -> None:
        """``seed`` is any int64; None makes a source that nobody has seen."""
        self._state = secrets.randbits(64) if seed is None else seed % _WORD

    def key(self) -> int:
        """The next key, an int64."""
        self._state = word = (self._state + _GAMMA) % _WORD
        word = (word ^ word >> 30) * _FIRST % _WORD
        word = (word ^ word >> 27) * _SECOND % _WORD
        return _signed(word ^ word >> 31)


def exponential(keys: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Return for each id a number of the exponential distribution with mean 1, as float32.

    ``keys`` are int64, shape (rows, 1); ``ids`` int64, shape (rows, ids) or (ids,). What weighs w
    and has the number e is picked with a probability proportional to w, when that with the largest
    w / e is picked.
    """
    bits = ids * _signed(_GAMMA) + keys
    _mix(bits, 30, _FIRST)
    _mix(bits, 27, _SECOND)
    _mix(bits, 31, 1)
    # Near 0, where the winners are, floats are finer than any grid: hence 63 bits, and log1p.
    uniform = bits.bitwise_and_(_HALF - 1).float().mul_(1 / _HALF).clamp_(_LEAST, _MOST)
    return uniform.neg_().log1p_().neg_()


def _mix(bits: torch.Tensor, shift: int, factor: int) -> None:
    # torch's shift copies the sign, which is no number's part here.
    bits.bitwise_xor_((bits >> shift).bitwise_and_((1 << (64 - shift)) - 1))
    if factor != 1:
        bits.mul_(_signed(factor))


def _signed(word: int) -> int:
    return word - _WORD if word >= _HALF else word
