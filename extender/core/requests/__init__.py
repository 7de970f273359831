"""From a pod to what it asks for, or to the one sentence that refuses it.

``parse`` is the door: ``dialects`` read the annotations' form, ``rules`` judge what they say together, ``resources``
count as kube-scheduler counts, ``prepared`` says what could hold the pod to its share; over ``pod`` (where things stand
in a pod's JSON) and exact ``quantity``.
"""

from extender.core.requests.parse import GpuRequest, InvalidRequest, Share
from extender.core.requests.prepared import LIMITS

__all__ = ["LIMITS", "GpuRequest", "InvalidRequest", "Share"]
