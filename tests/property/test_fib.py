"""Whatever others do, and whenever: in the end the kernel has what is wanted, and theirs is untouched."""

from __future__ import annotations

import errno

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from routes.fib import Delta, Failure, Fib, FibEntry, Hop
from routes.prefix import Address, Prefix
from tests.fakes.fake_kernel import FakeKernel, Route

OURS, THEIRS, METRIC = 179, 186, 20
PREFIXES = [Prefix(Address(bytes((10, number, 0, 0))), 16) for number in range(5)]
SHAPES = [FibEntry.of([Hop(Address(bytes((192, 0, 2, number))), 3)]) for number in range(3)]
LONG = 10_000.0

prefixes, shapes = st.sampled_from(PREFIXES), st.sampled_from(SHAPES)


class FibAgainstKernel(RuleBasedStateMachine):
    """Interleaves wishes, applies in flight, foreign edits and late notifications."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.kernel = FakeKernel(OURS)
        self.fib = Fib(METRIC, OURS)
        self.kernel.routes[PREFIXES[0]] = Route(OURS, SHAPES[0])
        self.fib.adopt(self.kernel.entries(), self.now + 50)
        self.delta: Delta | None = None
        self.known_foreign: set[Prefix] = set()
        self.foreign_when_asked: set[Prefix] = set()
        self.held: dict[Prefix, float] = {}
        self.lost = False

    # What the RIB wants

    @rule(nlri=prefixes, entry=shapes)
    def want(self, nlri: Prefix, entry: FibEntry) -> None:
        self.fib.want(nlri, entry)
        self.held.pop(nlri, None)

    @rule(nlri=prefixes, seconds=st.sampled_from([0.0, 7.0]))
    def withdraw(self, nlri: Prefix, seconds: float) -> None:
        self.fib.want(nlri, None, self.now + seconds if seconds else 0.0)

    @rule(seconds=st.sampled_from([0.5, 5.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    # What is applied

    @precondition(lambda self: self.delta is None)
    @rule(limit=st.sampled_from([0, 1, 2]))
    def ask(self, limit: int) -> None:
        delta = self.fib.delta(self.now, limit)
        if delta.size:
            self.delta = delta
            self.foreign_when_asked = set(self.known_foreign)

    @precondition(lambda self: self.delta is not None)
    @rule(read_events_first=st.booleans())
    def apply(self, read_events_first: bool) -> None:
        assert self.delta is not None
        assert self.fib.delta(self.now).size == 0, "one apply in flight"
        before = len(self.kernel.taken_from_others)
        answer = self.kernel.apply(self.delta)
        assert not self.foreign_when_asked & set(self.kernel.taken_from_others[before:])
        if read_events_first:
            self.read_events()
        self.fib.applied(answer, self.now)
        self.delta = None

    # What others do

    @rule(nlri=prefixes, entry=shapes, protocol=st.sampled_from([OURS, THEIRS]))
    def others_put(self, nlri: Prefix, entry: FibEntry, protocol: int) -> None:
        self.kernel.put(nlri, protocol, entry)

    @rule(nlri=prefixes)
    def others_delete(self, nlri: Prefix) -> None:
        self.kernel.delete(nlri)

    @rule(nlri=prefixes)
    def a_device_is_lost(self, nlri: Prefix) -> None:
        self.kernel.lose(nlri)
        self.lost = True

    @rule(nlri=prefixes, refuse=st.booleans())
    def the_kernel_refuses(self, nlri: Prefix, refuse: bool) -> None:
        if refuse:
            self.kernel.refusals[nlri] = Failure(errno.ENETUNREACH, "Nexthop has invalid gateway")
        else:
            self.kernel.refusals.pop(nlri, None)

    @rule()
    def read_events(self) -> None:
        for event in self.kernel.events:
            self.fib.observed(*event)
            if event.protocol == THEIRS and event.entry is not None:
                self.known_foreign.add(event.nlri)
            else:
                self.known_foreign.discard(event.nlri)
        self.kernel.events.clear()

    @rule()
    def dump_again(self) -> None:
        self.fib.resynced(self.kernel.entries())
        self.lost = False

    # What must hold

    @invariant()
    def reasons_are_given(self) -> None:
        for nlri in PREFIXES:
            state = self.fib.state(nlri)
            assert bool(state.reason) == (state.wanted != state.actual)

    def teardown(self) -> None:
        """Once all is calm, the kernel has what is wanted wherever no foreign route is in the way."""
        self.kernel.refusals.clear()
        if self.lost:
            self.dump_again()
        for _ in range(20):
            self.read_events()
            self.now += LONG
            if self.delta is None:
                self.ask(0)
            if self.delta is not None:
                self.apply(False)
        for nlri in PREFIXES:
            route = self.kernel.routes.get(nlri)
            if route is not None and route.protocol == THEIRS:
                assert nlri not in self.fib.actual
                wanted = self.fib.desired.get(nlri)
                assert wanted is None or "protocol 186" in self.fib.state(nlri).reason
            else:
                assert (route.entry if route else None) == self.fib.desired.get(nlri), nlri
        assert self.fib.actual == self.kernel.entries()
        assert not self.fib.held


FibAgainstKernel.TestCase.settings = settings(max_examples=400, stateful_step_count=40, deadline=None)
TestFibAgainstKernel = FibAgainstKernel.TestCase
