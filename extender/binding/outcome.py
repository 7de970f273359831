"""How a bind ends when it does not succeed."""


class BindFailed(Exception):
    """Why the pod was not bound, in a sentence for kube-scheduler's event; nothing of ours is left behind."""


class Refusal(BindFailed):
    """The API has said no, and would say it again: the pod is left alone on that node for a while."""


class StillOpening(BindFailed):
    """The reservation pod of the one new GPU has not reported in time; it stays, and the next bind goes on with it."""


class OutcomeUnknown(BindFailed):
    """Nobody knows yet whether the Binding landed: what it would hold stays held until a fence tells."""
