"""How a message shows what somebody else wrote: short, on one line, whatever it is."""

from typing import Final

# Annotations may be 256 KiB, and kube-scheduler copies our sentence once per node.
LONGEST_VALUE: Final = 40
# A container name has at most 63 characters, and no key that the API server accepts is cut here.
LONGEST_NAME: Final = 120

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONSTANTS: Final = {None: "null", True: "true", False: "false"}


def quote(value: object) -> str:
    """``value`` as a message shows it: text in double quotes, cut after 40 characters.

    Objects and lists are named, not printed: they may be deep or large.
    """
    if isinstance(value, str):
        return f'"{_cut(value, LONGEST_VALUE)}"'
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    if value is None or isinstance(value, bool):
        return _CONSTANTS[value]
    if isinstance(value, int) and value.bit_length() > 128:
        return "a very large integer"  # repr() of more than 4,300 digits raises
    return repr(value) if isinstance(value, int | float) else f"a {type(value).__name__}"


def plain(name: object) -> str:
    """A key or name that somebody else chose, without quotes, cut after 120 characters."""
    return _cut(name, LONGEST_NAME) if isinstance(name, str) else quote(name)


def _cut(text: str, longest: int) -> str:
    cut = text[:longest]
    if not cut.isprintable():
        # Line breaks would split the sentence; lone surrogates could not be encoded. No more than the admission
        # policies can do too, whose sentences are the same.
        cut = "".join(char if char.isprintable() else _ESCAPES.get(char, "?") for char in cut)
    return cut + "…" if len(text) > longest else cut
