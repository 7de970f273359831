"""How a bind ends when it does not succeed."""


class BindFailed(Exception):
    """Why the pod was not bound, in a sentence for kube-scheduler's event; nothing of ours is left behind."""


class OutcomeUnknown(BindFailed):
    """Nobody knows yet whether the Binding landed: what it would hold stays held until a fence tells."""
