"""A cluster in a file, as kubectl prints it.

``load`` is the door: text → ``objects`` (through ``yaml_reader`` or ``json``) → ``checks`` → ``identity``. Every error
is one line that names file, document, object, field and value.
"""

from extender.snapshot.load import (
    STANDARD_INPUT,
    Snapshot,
    load_pods,
    load_snapshot,
    parse_snapshot,
    read_pod,
    with_pods,
)

__all__ = [
    "STANDARD_INPUT",
    "Snapshot",
    "load_pods",
    "load_snapshot",
    "parse_snapshot",
    "read_pod",
    "with_pods",
]
