"""From a pod to what it asks for, or to the one sentence that refuses it.

``parse`` is the door: ``dialects`` read the annotations' form, ``rules`` judge what they say together, ``resources``
count as kube-scheduler counts, over ``pod`` (where things stand in a pod's JSON) and exact ``quantity``.
"""

from extender.core.requests.parse import GpuRequest, InvalidRequest, Share

__all__ = ["GpuRequest", "InvalidRequest", "Share"]
