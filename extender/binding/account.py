"""What a bind tells the ledger at its end. Evidence may have come first: what the watch has shown stands."""

from extender.core.ledger import Ledger
from extender.core.values import PodOnNode, ShareState


def confirm(ledger: Ledger, uid: str) -> None:
    """The pod is bound; it may have ended since."""
    if ledger.pod(uid) is not None:
        ledger.confirm(uid)


def give_back(ledger: Ledger, assumed: PodOnNode) -> None:
    """The bind has failed: its room is free again, and what it planned is planned no more."""
    held = ledger.pod(assumed.uid)
    # Seen bound, here or elsewhere: that stands, whatever the answer to our own Binding was.
    if held is not None and held.state is not ShareState.CONFIRMED:
        ledger.forget(assumed.uid)
    ledger.unplan(assumed)
