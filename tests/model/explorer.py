"""Every state that a model can reach, breadth first: the first violation found is one of the shortest."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

State = TypeVar("State", bound=Hashable)


class Model(Protocol[State]):
    """What is explored. States of equal value are one state."""

    def initial(self) -> State:
        """Where everything starts."""

    def steps(self, state: State) -> Iterator[tuple[str, State, bool]]:
        """What may happen next: in words, the state after it, and whether it is a mishap."""

    def broken(self, state: State) -> str | None:
        """The first invariant that does not hold, in words."""

    def is_settled(self, state: State) -> bool:
        """Whether nobody waits for something that he could have."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an exploration has come to."""

    states: int
    #: None, or what is wrong and how it comes about
    violation: str | None
    trace: tuple[str, ...] = ()
    #: Whether there are no states but these.
    complete: bool = True

    def __str__(self) -> str:
        if self.violation is None:
            return f"{self.states} states{'' if self.complete else ' of more'}, nothing wrong"
        steps = "\n".join(f"  {number}. {step}" for number, step in enumerate(self.trace, 1))
        return f"{self.violation}, after\n{steps}"


class _Graph(Generic[State]):
    """States by number, how each was first reached, and from where it is reached without a mishap."""

    def __init__(self, initial: State) -> None:
        self.states = [initial]
        self.numbers = {initial: 0}
        self.came: list[tuple[int, str]] = [(0, "")]
        self.before: list[list[int]] = [[]]

    def add(self, origin: int, label: str, state: State) -> tuple[int, bool]:
        """The state's number, and whether it is new."""
        number = self.numbers.setdefault(state, len(self.states))
        if number < len(self.states):
            return number, False
        self.states.append(state)
        self.came.append((origin, label))
        self.before.append([])
        return number, True

    def found(self, number: int, what: str) -> Found:
        """The way to that state."""
        trace: list[str] = []
        while number:
            number, label = self.came[number]
            trace.append(label)
        return Found(len(self.states), what, tuple(reversed(trace)))


def explore(model: Model[State], limit: int, *, progress: bool = False) -> Found:
    """Look at every reachable state, or the first ``limit``.

    With ``progress``, and where those are all, also at whether each can still settle without another mishap.
    """
    graph = _Graph(model.initial())
    todo = deque([0])
    while todo:
        origin = todo.popleft()
        for label, state, mishap in model.steps(graph.states[origin]):
            number, new = graph.add(origin, label, state)
            if progress and not mishap:
                graph.before[number].append(origin)
            if not new:
                continue
            if (what := model.broken(state)) is not None:
                return graph.found(number, what)
            if number >= limit:
                return Found(len(graph.states), None, complete=False)
            todo.append(number)
    stuck = _stuck(graph, model.is_settled) if progress else None
    if stuck is not None:
        return graph.found(stuck, "from here on a pod waits for ever, though there is room")
    return Found(len(graph.states), None)


def _stuck(graph: _Graph[State], is_settled: Callable[[State], bool]) -> int | None:
    """The first state from which no settled one is reached without a mishap."""
    good = {number for number, state in enumerate(graph.states) if is_settled(state)}
    todo: Iterable[int] = good
    while todo:
        todo = {origin for number in todo for origin in graph.before[number]} - good
        good |= todo
    return next((number for number in range(len(graph.states)) if number not in good), None)
