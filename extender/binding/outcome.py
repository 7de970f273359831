"""How a bind ends when it does not succeed."""

from extender.core.errors import Busy, GpuExtenderError, Refused


class BindFailed(Exception):
    """Why the pod was not bound, in a sentence for kube-scheduler's event; nothing of ours is left behind."""


class Refusal(BindFailed):
    """The API has said no, and would say it again: the pod is left alone on that node for a while."""


def failure_of(error: GpuExtenderError) -> BindFailed:
    """How a bind ends that failed with that error."""
    for_good = isinstance(error, Refused) and not isinstance(error, Busy)
    return Refusal(str(error)) if for_good else BindFailed(str(error))


class StillOpening(BindFailed):
    """The reservation pod of the one new GPU has not reported in time; it stays, and the next bind goes on with it."""


class OutcomeUnknown(BindFailed):
    """Nobody knows yet whether the Binding landed: what it would hold stays held until a fence tells."""
