"""Which GPU models a pod may use: what its spec says, else what the nodes it is offered show.

kube-scheduler applies node selectors and affinities before it asks, so a pod bound to a model by any label shows in
the names: nodes of the other models have room by the ledger, yet none is named.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from extender.core.fields import child, children, text

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
#: Names are evidence only while kube-scheduler names nearly all nodes that have room: it may look at a part of a large
#: cluster only, and a pod may be bound to a pool of nodes for other reasons.
NAMED: Final = 0.9

Product = str | None
#: None: every model.
Products = frozenset[Product] | None


def by_spec(pod: Mapping[str, Any], products: Iterable[Product]) -> Products:
    """What node selector and required node affinity say about the product label; None if they say nothing."""
    spec = child(pod, "spec")
    if "nodeSelector" not in spec and "affinity" not in spec:
        return None  # As most pods.
    allowed = frozenset(products)
    selected = text(child(spec, "nodeSelector"), PRODUCT_LABEL)
    kept = allowed if selected is None else allowed & {selected}
    required = child(spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    terms = children(required, "nodeSelectorTerms")
    if terms:
        kept = frozenset(product for product in kept if any(_takes(term, product) for term in terms))
    return None if kept == allowed else kept


def _takes(term: Mapping[str, Any], product: Product) -> bool:
    """Whether all that the term says of the product label holds; what else it says is not known here."""
    expressions = children(term, "matchExpressions")
    return all(_holds(e, product) for e in expressions if e.get("key") == PRODUCT_LABEL)


def _holds(expression: Mapping[str, Any], product: Product) -> bool:
    values = expression.get("values")
    listed = product in values if isinstance(values, Sequence) else False
    match expression.get("operator"):
        case "In":
            return listed
        case "NotIn":
            return not listed
        case "Exists":
            return product is not None
        case "DoesNotExist":
            return product is None
    return True


def by_names(room: Mapping[Product, int], named: Mapping[Product, int], usual: Mapping[Products, float]) -> Products:
    """What the named nodes show.

    ``room``: nodes of each model that could take the pod by CPU, memory and GPUs; ``named``: those of them that are
    named; ``usual``: how often pods were bound to which models. A model without room shows nothing: the most usual set
    that agrees with what does show is taken.
    """
    used = frozenset(product for product in room if named.get(product))
    unused = frozenset(product for product, count in room.items() if count and product not in used)
    offered = sum(room[product] for product in used)
    if sum(named[product] for product in used) < NAMED * offered or not used:
        return None
    if len(used) + len(unused) == len(room):
        return used if unused else None
    agreeing = {
        products: weight
        for products, weight in usual.items()
        if (products is None and not unused) or (products is not None and used <= products and not unused & products)
    }
    if agreeing:
        return max(agreeing, key=lambda products: (agreeing[products], products is None))
    return frozenset(room) - unused if unused else None
