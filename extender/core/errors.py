"""What can go wrong, as one tree.

::

    GpuExtenderError                 everything that this project raises on purpose
    ├── InputError                   a file, option or body that a person must correct; the text names the place
    │   └── InvalidQuantity          a Kubernetes quantity that cannot be read
    ├── LedgerError                  an operation that the ledger's state does not allow; nothing has changed
    │   └── DoesNotFit               the placement asked for is no longer possible
    └── ApiError                     what the Kubernetes API (or the embedded cluster) answered instead of success
        ├── NotFound                 404
        ├── Conflict                 409
        ├── Gone                     410: a list or watch cannot go on from where it was; list again
        ├── Refused                  another 4xx: asking again does not help
        │   └── Busy                 429: it has done nothing; it would later
        └── Unavailable              no answer, or 5xx: nobody knows whether it happened

A request that does not fit a node is no error but data: see ``placement.Shortfall``. A pod that asks for
something that nobody can grant is data too: see ``request.InvalidRequest``.
"""


class GpuExtenderError(Exception):
    """Root of the tree; the command line prints it as one line."""


class InputError(GpuExtenderError):
    """Bad input; the text names file or place, field and value."""


class InvalidQuantity(InputError):
    """Not a Kubernetes quantity, or one that makes no sense where it stands."""


class LedgerError(GpuExtenderError):
    """The ledger's state does not allow the operation; nothing has changed."""


class DoesNotFit(LedgerError):
    """What was chosen no longer fits; nothing has changed."""


class ApiError(GpuExtenderError):
    """The cluster's API did not do what was asked."""


class NotFound(ApiError):
    """404: no such object."""


class Conflict(ApiError):
    """409: the object is not in the state that the call presumed."""


class Gone(ApiError):
    """410: the version asked for is no longer known; list again."""


class Refused(ApiError):
    """Another 4xx: a definite no."""


class Busy(Refused):
    """429: a definite no for now."""


class Unavailable(ApiError):
    """Time-out, broken connection or 5xx: the outcome is unknown."""
