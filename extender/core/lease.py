"""The body of a coordination.k8s.io/v1 Lease, as leader election writes and reads it."""

from collections.abc import Mapping
from typing import Any

from extender.core.fields import child, text

Lease = Mapping[str, Any]


def holder_of(lease: Lease) -> str:
    """Who holds it; empty where nobody does."""
    return text(child(lease, "spec"), "holderIdentity") or ""


def seconds_of(lease: Lease) -> float | None:
    """How long its holder may be silent before others take over; None where it does not say."""
    seconds = child(lease, "spec").get("leaseDurationSeconds")
    return float(seconds) if isinstance(seconds, int) and seconds > 0 else None


def new(namespace: str, name: str) -> dict[str, Any]:
    """A Lease that nobody holds, as it is created."""
    return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"namespace": namespace, "name": name}}


def held(lease: Lease, by: str, seconds: int, now: str) -> dict[str, Any]:
    """The Lease once ``by`` has taken or renewed it. ``now``: a MicroTime."""
    before = child(lease, "spec")
    own = {"holderIdentity": by, "leaseDurationSeconds": seconds, "renewTime": now}
    if holder_of(lease) == by:
        return _with_spec(lease, {**before, **own})
    transitions = before.get("leaseTransitions")
    count = transitions + 1 if isinstance(transitions, int) else 0
    return _with_spec(lease, {**before, **own, "acquireTime": now, "leaseTransitions": count})


def released(lease: Lease, now: str) -> dict[str, Any]:
    """The Lease once its holder has given it up: the next one need not wait."""
    own = {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
    return _with_spec(lease, {**child(lease, "spec"), **own})


def same_write(lease: Lease, written: Lease) -> bool:
    """Whether what stands is what that write wrote."""
    stands, wrote = child(lease, "spec"), child(written, "spec")
    return all(stands.get(key) == wrote.get(key) for key in ("holderIdentity", "renewTime"))


def _with_spec(lease: Lease, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**lease, "spec": dict(spec)}
