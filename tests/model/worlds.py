"""The worlds that are explored: each is small, and holds what some sentences are about."""

from dataclasses import replace
from typing import Final

from tests.model.config import Config
from tests.model.state import BOUND, LOST, OPEN, UP, Gpu, Pod, Reservation

ON_0, ON_1, NONE = Reservation(UP, 0), Reservation(UP, 1), Reservation()
ONE, TWO_DEVICES = (1, 1), (1, 2)
#: The first pod, running.
RUNS = Pod(BOUND, ((0, 0),), 1)
SHARE = ((0, 1),)

#: Two pods for one GPU with room for one.
BIND = Config((ONE, ONE), reservations=(ON_0,), kinds=("timeout", "kill", "delete", "write", "elsewhere"))
PAIRS = Config((TWO_DEVICES, TWO_DEVICES), devices=2, reservations=(ON_0, ON_1), mishaps=1)
#: A GPU is running one pod, and two more want the room that is left for one.
LOST_RECORD = Config(
    (ONE, ONE, ONE),
    card=2,
    reservations=(ON_0,),
    record=(Gpu(0, OPEN, SHARE),),
    bound=(RUNS,),
    kinds=("delete-record", "kill"),
    lag=True,
)

WORLDS: Final = {
    "bind": BIND,
    "two GPUs": replace(BIND, reservations=(ON_0, ON_1), devices=2, kinds=("timeout", "kill"), mishaps=1),
    "pods of two devices": PAIRS,
    "requests are sent twice": replace(BIND, mishaps=3, kinds=("repeat",), lag=True),
    "Bindings are forbidden": replace(BIND, kinds=("timeout", "refuse", "write")),
    "reconciler": replace(BIND, jobs=("reconcile",), kinds=("kill", "write")),
    "GPUs open and close": Config(
        (ONE,),
        reservations=(ON_0, NONE),
        jobs=("open", "close"),
        mishaps=1,
        kinds=("timeout", "kill", "delete"),
        lag=True,
    ),
    "a reservation is deleted": Config(
        (ONE, ONE), reservations=(ON_0, NONE), jobs=("open", "repair"), mishaps=1, kinds=("steal", "timeout")
    ),
    "an idle reservation is deleted": Config(
        (ONE, ONE), reservations=(ON_0, NONE), extenders=1, jobs=("open",), kinds=("steal", "delete")
    ),
    "a lost GPU is repaired": Config(
        (ONE, ONE),
        reservations=(Reservation(LOST, 0), ON_0, NONE),
        record=(Gpu(0, LOST, SHARE), None, None),
        bound=(RUNS,),
        jobs=("open", "close", "repair"),
        mishaps=1,
        kinds=("timeout", "delete"),
    ),
    "the record is deleted": LOST_RECORD,
    "an entry is removed": replace(LOST_RECORD, lag=False, mishaps=1, kinds=("edit-record",)),
}

#: Larger ones, for ``python -m tests.model --deep``.
DEEP: Final = {
    "three extenders": replace(BIND, extenders=3, mishaps=1),
    "three pods": replace(BIND, sizes=(ONE, ONE, ONE), card=2, kinds=("timeout", "kill"), mishaps=2),
    "everything": Config(
        (ONE, ONE),
        devices=2,
        reservations=(ON_0, NONE, NONE),
        jobs=("open", "close", "reconcile", "repair"),
        mishaps=2,
        kinds=("timeout", "kill", "delete", "write", "steal"),
        lag=True,
    ),
}

#: In which world it shows that a sentence is missing.
SHOWN_IN: Final = {
    "entry_before_binding": "bind",
    "put_has_version": "pods of two devices",
    "room_is_judged": "bind",
    "missing_pods_count": "an entry is removed",
    "device_occurs_once": "a lost GPU is repaired",
    "closing_gains_nothing": "GPUs open and close",
    "names_are_new": "a reservation is deleted",
    "all_devices_at_once": "pods of two devices",
    "entering_is_read": "GPUs open and close",
    "lost_record_is_fenced": "the record is deleted",
    "lost_record_is_remade": "the record is deleted",
    "lost_record_is_listed": "the record is deleted",
    "silent_put_is_read": "bind",
    "binding_has_version": "pods of two devices",
    "conflict_is_read": "requests are sent twice",
    "silence_is_fenced": "pods of two devices",
    "other_try_is_fenced": "GPUs open and close",
    "try_has_one_version": "requests are sent twice",
    "fence_is_new": "pods of two devices",
    "gone_is_shown": "bind",
    "end_is_shown": "GPUs open and close",
    "bound_stays": "GPUs open and close",
    "dropping_is_fenced": "reconciler",
    "fence_follows_reading": "reconciler",
    "try_is_compared": "reconciler",
    "closing_comes_first": "GPUs open and close",
    "unrecorded_is_closed": "GPUs open and close",
    "unreported_is_checked": "GPUs open and close",
    "held_elsewhere_stays": "a lost GPU is repaired",
    "idle_loss_leaves": "an idle reservation is deleted",
}
#: Nothing goes wrong without these in any world: what each would prevent, another sentence prevents already.
COVERED_BY_OTHERS: Final = {"id_is_one_device"}

#: Where the protocol does not hold (docs/binding.md, known holes); in the third the code is better than the model, for
#: it says on the reservation pod that it is being closed.
HOLES: Final = {
    "the record is deleted while no share is bound": replace(
        LOST_RECORD, sizes=(ONE, ONE), card=1, record=None, bound=(), mishaps=1, kinds=("delete-unused-record",)
    ),
    "the record is deleted twice": replace(LOST_RECORD, kinds=("delete-record", "delete-record-again")),
    "the record is deleted while a GPU is being closed": Config(
        (ONE, ONE),
        devices=2,
        reservations=(ON_0, ON_1),
        record=(Gpu(0, OPEN, SHARE), None),
        bound=(RUNS,),
        jobs=("close",),
        mishaps=1,
        kinds=("delete-record",),
    ),
    "one copy of a Binding is forbidden, the other lands": replace(BIND, kinds=("repeat", "refuse")),
}
