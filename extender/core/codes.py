"""Reasons as small integers: what arrays hold instead of a ``Shortfall``."""

from collections.abc import Mapping
from typing import Final

from extender.core.placement import REASON_TEXT

#: Code of a node that fits; all others are reasons.
FITS: Final = 0
#: (reason, resolvable), in the order of their codes, which start at 1.
REASONS: Final = tuple((reason, resolvable) for reason in REASON_TEXT for resolvable in (False, True))
CODE: Final[Mapping[tuple[str, bool], int]] = {reason: code for code, reason in enumerate(REASONS, start=1)}
UNKNOWN_NODE: Final = CODE["UnknownNode", False]
