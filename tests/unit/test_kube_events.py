"""Events: said once, counted after, and never more than the budgets."""

from __future__ import annotations

from collections.abc import Mapping

from bgpd.kube import events
from bgpd.kube.events import EventBook, EventWrite, Regarding

NODE = Regarding("v1", "Node", "n1", "uid-1")
SERVICE = Regarding("v1", "Service", "web", "uid-2", "shop")
WALL = "2026-01-31T12:00:00.000000Z"


def body(write: EventWrite) -> Mapping[str, object]:
    assert write.create
    return write.body


def test_an_event_has_what_the_api_asks_for() -> None:
    book = EventBook("controller-1")
    book.say(0, WALL, SERVICE, "AddressAllocated", "203.0.113.1", bad=False)
    (write,) = book.take(0)
    said = body(write)
    assert write.path == "/apis/events.k8s.io/v1/namespaces/shop/events"
    assert said["regarding"] == {
        "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "uid-2", "namespace": "shop",
    }  # fmt: skip
    required = {"eventTime", "reportingController", "reportingInstance", "action", "reason", "type", "note"}
    assert all(said[field] for field in required)
    assert said["type"] == "Normal"
    assert book.take(0) == []


def test_an_event_of_an_object_without_a_namespace_is_where_every_version_takes_it() -> None:
    book = EventBook("c")
    book.say(0, WALL, NODE, "DuplicatePodCIDR", "x", bad=True)
    (write,) = book.take(0)
    assert "/namespaces/kube-system/" in write.path
    assert body(write)["type"] == "Warning"


def test_what_repeats_is_one_event_with_a_count() -> None:
    book = EventBook("c")
    for second in range(30):
        book.say(second, f"wall {second}", NODE, "R", "same")
    (first,) = book.take(30)
    assert book.take(59) == []
    (series,) = book.take(60)
    assert not series.create
    assert series.path.startswith(first.path + "/n1.")
    assert series.body == {"series": {"count": 30, "lastObservedTime": "wall 29"}}
    assert book.take(1000) == []
    book.say(29 + events.SERIES_TIME, WALL, NODE, "R", "same")
    assert [write.create for write in book.take(1000)] == [True], "after a silence it is news again"


def test_one_object_can_not_use_up_what_others_may_say() -> None:
    book = EventBook("c")
    for number in range(1000):
        book.say(0, WALL, NODE, "R", f"note {number}")
    book.say(0, WALL, SERVICE, "R", "quiet one")
    writes = book.take(0)
    assert len(writes) == events.OBJECT_BURST + 1
    assert book.dropped == 1000 - events.OBJECT_BURST
    book.say(31, WALL, NODE, "R", "later")
    assert len(book.take(31)) == 1


def test_nothing_grows_whatever_is_said() -> None:
    book = EventBook("c")
    for number in range(5000):
        about = Regarding("v1", "Node", f"n{number}", f"uid-{number}")
        book.say(float(number), WALL, about, "R", "note " * 1000)
    writes = book.take(5000)
    assert len(writes) <= events.MOST_WAITING
    assert all(len(str(body(write)["note"])) <= events.LONGEST_NOTE for write in writes)
    assert len(book._series) <= events.MOST_SERIES  # noqa: SLF001  the bound itself
    assert len(book._buckets) <= events.MOST_SERIES  # noqa: SLF001  the bound itself


def test_names_are_valid_and_differ() -> None:
    book = EventBook("c")
    long = Regarding("v1", "Node", "n" * 199 + ".and-more", "uid")
    book.say(0, WALL, long, "R", "a")
    book.say(0, WALL, long, "R", "b")
    names = [body(write)["metadata"]["name"] for write in book.take(0)]  # type: ignore[index]  # JSON
    assert len(set(names)) == 2
    assert all(len(name) < 253 and ".." not in name for name in names)


def test_a_note_is_as_long_in_bytes_as_the_api_takes() -> None:
    book = EventBook("c")
    book.say(0, WALL, NODE, "R", "\u00e4" * 1000)
    (write,) = book.take(0)
    note = str(body(write)["note"])
    assert len(note.encode()) <= events.LONGEST_NOTE
    assert note.endswith("\u00e4 ...")
