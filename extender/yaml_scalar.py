"""What a YAML value without quotes stands for."""

import re
from functools import lru_cache
from typing import Final

# Only what both kubectl (Go) and PyYAML would have quoted, had it been text: each leaves some text bare that
# the other takes for a number or a date. More than 18 digits stay text, for they may not fit 64 bits.
_DECIMAL: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_OCTAL: Final = re.compile(r"[-+]?0[0-7]{1,18}")
_HEXADECIMAL: Final = re.compile(r"[-+]?0x[0-9a-fA-F]{1,15}")
_FLOAT: Final = re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_WORDS: Final[dict[str, bool | float | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **{case(word): True for word in ("true", "yes", "on") for case in (str.lower, str.title, str.upper)},
    **{case(word): False for word in ("false", "no", "off") for case in (str.lower, str.title, str.upper)},
    **{f".{word}": float("nan") for word in ("nan", "NaN", "NAN")},
    **{f"{sign}.{word}": float(f"{sign}inf") for sign in ("", "+", "-") for word in ("inf", "Inf", "INF")},
}


@lru_cache(maxsize=4096)
def resolve(text: str) -> str | int | float | bool | None:
    """The JSON value of a bare YAML scalar. A date, a time or a version is text, as kubectl takes it."""
    if text in _WORDS:
        return _WORDS[text]
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text):
        return int(text, 8)
    if _HEXADECIMAL.fullmatch(text):
        return int(text, 16)
    return float(text) if _FLOAT.fullmatch(text) else text
