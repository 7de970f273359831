"""Kubernetes quantities, exactly: ``500m``, ``4Gi``, ``1.5e3``.

As in Kubernetes, what lies beyond 2^63-1 counts as 2^63-1, and what is finer than a billionth is rounded away
from zero. The work is linear in the length of the text, whatever exponent it names.
"""

import re
from decimal import MAX_EMAX, MIN_EMIN, ROUND_UP, Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Final

from extender.core.errors import InvalidQuantity
from extender.core.requests.quote import quote

LARGEST: Final = 2**63 - 1

_QUANTITY: Final = re.compile(
    r"(?P<number>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))"
    r"(?:(?P<suffix>[KMGTPE]i|[numkMGTPE])|[eE](?P<exponent>[+-]?[0-9]+))?"
)
_DECIMAL_EXPONENT: Final = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
}  # fmt: skip
_BINARY_FACTOR: Final = {f"{letter}i": Decimal(1024 ** (i + 1)) for i, letter in enumerate("KMGTPE")}

_NANO: Final = Decimal("1e-9")
# Wide enough for 2^63 in billionths. Rounding up twice, first to these digits and then to billionths, is the
# same as rounding up once.
_CONTEXT: Final = Context(prec=100, rounding=ROUND_UP, Emin=MIN_EMIN, Emax=MAX_EMAX)
# An exponent past this is already far out of range; Decimal itself takes up to 18 digits.
_EXPONENT_DIGITS: Final = 12
_CACHED_LENGTH: Final = 32


def parse_quantity(value: object) -> Fraction:
    """The exact value of a quantity: text, or the bare number that YAML and JSON allow.

    Raises ``InvalidQuantity`` for anything else: blanks, booleans, null, NaN.
    """
    if isinstance(value, str):
        return _parse_short(value) if len(value) <= _CACHED_LENGTH else _parse(value)
    if isinstance(value, bool):
        raise InvalidQuantity(f"{quote(value)} is not a quantity")
    if isinstance(value, int):
        return Fraction(max(-LARGEST, min(LARGEST, value)))
    if isinstance(value, float):
        return _parse(repr(value))
    raise InvalidQuantity(f"{quote(value)} is not a quantity")


def rounded_up(quantity: Fraction, parts: int = 1) -> int:
    """A quantity in whole units, or in ``parts`` of a unit: CPU is counted in 1000."""
    return -(-quantity.numerator * parts // quantity.denominator)


def _parse(text: str) -> Fraction:
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise InvalidQuantity(f"{quote(text)} is not a quantity")
    suffix = match["suffix"] or ""
    exponent = _exponent(match["exponent"]) if match["exponent"] else _DECIMAL_EXPONENT.get(suffix, 0)
    number = Decimal(f"{match['number']}e{exponent}")
    return _bounded(_CONTEXT.multiply(number, _BINARY_FACTOR.get(suffix, Decimal(1))))


def _exponent(text: str) -> int:
    """The exponent, cut to 12 digits: more would be out of range all the same."""
    digits = text.lstrip("+-").lstrip("0")
    size = int(digits) if 0 < len(digits) <= _EXPONENT_DIGITS else 10**_EXPONENT_DIGITS if digits else 0
    return -size if text.startswith("-") else size


def _bounded(number: Decimal) -> Fraction:
    if number.is_zero():
        return Fraction(0)
    sign = -1 if number.is_signed() else 1
    if number.adjusted() > 18:  # 10^19 and more
        return Fraction(sign * LARGEST)
    if number.adjusted() < -9:
        return Fraction(sign, 10**9)
    nanos = int(number.quantize(_NANO, context=_CONTEXT).scaleb(9, context=_CONTEXT))
    return Fraction(sign * min(abs(nanos), LARGEST * 10**9), 10**9)


# The same few texts ("1", "500m", "4Gi") fill a cluster; long ones are nobody's habit and are not kept.
_parse_short: Final = lru_cache(maxsize=4096)(_parse)
