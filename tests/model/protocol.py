"""The sentences of the protocol, each of which can be left out."""

from dataclasses import dataclass, fields, replace


@dataclass(frozen=True, slots=True)
class Protocol:
    """docs/binding.md, and what it needs besides: there it says what the code lacks."""

    # --- the record
    #: The entry comes before the Binding.
    entry_before_binding: bool = True
    #: The record is changed only by a PUT with its resourceVersion.
    put_has_version: bool = True
    #: The sum of the shares of a GPU is at most its memory, on the version that is being replaced.
    room_is_judged: bool = True
    #: Pods that are bound and not in the record count too.
    missing_pods_count: bool = True
    #: A device occurs once.
    device_occurs_once: bool = True
    #: A closing or lost GPU gains nothing.
    closing_gains_nothing: bool = True
    #: An id stands for one reservation pod and one device.
    id_is_one_device: bool = True
    #: A reservation pod's name is never used twice.
    names_are_new: bool = True
    #: All devices of a pod are in one PUT.
    all_devices_at_once: bool = True
    #: A GPU that is not in the record enters it only if a read shows its reservation pod alive.
    entering_is_read: bool = True
    #: A missing record: every unbound share pod is fenced.
    lost_record_is_fenced: bool = True
    #: A missing record is made from what is bound.
    lost_record_is_remade: bool = True
    #: ... and what is bound and unbound is read from the API, not from what the watch has shown.
    lost_record_is_listed: bool = True

    # --- the Binding
    #: No answer to the PUT: read the record. Left out: go on.
    silent_put_is_read: bool = True
    #: The Binding carries the resourceVersion that was read.
    binding_has_version: bool = True
    #: 409: read the pod before anything else.
    conflict_is_read: bool = True
    #: No answer, or 5xx: fence. Left out: read.
    silence_is_fenced: bool = True
    #: Where another try's entry stands: fence, then replace. Left out: replace.
    other_try_is_fenced: bool = True
    #: ... and with a new try, for a try has one version of the pod.
    try_has_one_version: bool = True
    #: The fence moves the version each time. Left out: a patch that changes nothing the second time.
    fence_is_new: bool = True

    # --- when an entry may be dropped
    #: Gone is evidence. Left out: a pod that is not seen bound is taken for gone.
    gone_is_shown: bool = True
    #: A deletion that was only asked for ends nothing.
    end_is_shown: bool = True
    #: The entry of a pod that is bound there stays, whatever try it names. Left out: its Binding has landed.
    bound_stays: bool = True
    #: By anyone only after a fence.
    dropping_is_fenced: bool = True
    #: ... that was sent after the entry was read.
    fence_follows_reading: bool = True
    #: ... if the try is still the same.
    try_is_compared: bool = True

    # --- closing
    #: PUT state closing before the DELETE.
    closing_comes_first: bool = True
    #: ... even for a GPU that never stood in the record.
    unrecorded_is_closed: bool = True
    #: A reservation pod without a report is deleted only at the version that was read without one.
    unreported_is_checked: bool = True
    #: A GPU whose device stands in the record under another id is not closed.
    held_elsewhere_stays: bool = True
    #: A GPU without shares leaves the record once its reservation pod is gone, closing or not.
    idle_loss_leaves: bool = True

    def without(self, *sentences: str) -> "Protocol":
        """The protocol without these sentences."""
        return replace(self, **dict.fromkeys(sentences, False))


FULL = Protocol()
SENTENCES = tuple(field.name for field in fields(Protocol))
