"""What a bind tells the ledger, at its start and at its end.

Evidence may have come before the end: what the watch has shown stands.
"""

from collections.abc import Callable, Sequence

from extender.binding.api import Pod
from extender.binding.outcome import BindFailed
from extender.core.decisions import Decisions
from extender.core.errors import LedgerError
from extender.core.ledger import Ledger
from extender.core.placement import Shortfall
from extender.core.podreader import grace_of, namespaced_name, uid_of
from extender.core.requests import GpuRequest
from extender.core.values import PodOnNode, ShareState


def assume(
    decisions: Decisions,
    pod: Pod,
    node: str,
    request: GpuRequest,
    new_ids: Callable[[int], Sequence[str]] = lambda _number: (),
) -> PodOnNode:
    """The pod with the best placement there, its room taken. ``new_ids`` names so many GPUs that are opened for it.

    Raises BindFailed where there is no placement, or the pod is in the books already.
    """
    verdict = decisions.choose(node, request)
    if isinstance(verdict, Shortfall):
        raise BindFailed(verdict.text)
    namespace, name = namespaced_name(pod)
    uid = uid_of(pod)
    try:
        return decisions.ledger.assume(
            uid=uid,
            namespace=namespace,
            name=name,
            node=node,
            request=request,
            placement=verdict,
            new_ids=new_ids(verdict.new),
            grace=grace_of(pod),
        )
    except LedgerError as error:
        raise BindFailed(str(error)) from error


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
