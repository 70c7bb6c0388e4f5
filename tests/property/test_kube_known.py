"""Whatever happens to the objects of a resource, its listener believes what is so and hears it once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bgpd.kube.known import Batch, Identity, Known

UIDS, NAMES = st.integers(0, 5), st.integers(0, 2)
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), UIDS, NAMES, st.integers(0, 2)),
        st.tuples(st.just("malformed"), UIDS, NAMES),
        st.tuples(st.just("remove"), UIDS),
        st.tuples(st.just("list"), st.frozensets(UIDS)),
        st.tuples(st.just("tell")),
    ),
    max_size=40,
)
Value = tuple[str, int]  # the object's UID, and what else there is to it


def who(uid: int, name: int) -> Identity:
    """A UID keeps its name, as objects do; two UIDs may share one, as an object and its successor do."""
    return Identity(f"u{uid}-{name}", f"n{name}")


def apply(
    known: Known[Value], model: dict[str, tuple[str, Value | None]], operation: tuple[object, ...]
) -> None:
    """Do one thing to both; the model keeps (name, last good value) by UID."""
    match operation:
        case ("put", int(uid), int(name), int(value)):
            supersede(model, who(uid, name))
            known.put(who(uid, name), (who(uid, name).uid, value))
            model[who(uid, name).uid] = (f"n{name}", (who(uid, name).uid, value))
        case ("malformed", int(uid), int(name)):
            supersede(model, who(uid, name))
            known.put_malformed(who(uid, name), "odd")
            model.setdefault(who(uid, name).uid, (f"n{name}", None))
        case ("remove", int(uid)):
            for name in range(3):
                known.remove(who(uid, name).uid)
                model.pop(who(uid, name).uid, None)
        case ("list", frozenset() as uids):
            kept = {who(uid, name).uid for uid in uids for name in range(3)}
            known.keep_only(kept)
            for gone in set(model) - kept:
                del model[gone]


def supersede(model: dict[str, tuple[str, Value | None]], identity: Identity) -> None:
    for uid, (name, _) in list(model.items()):
        if name == identity.name and uid != identity.uid:
            del model[uid]


def hear(believed: list[Value], batches: list[Batch[Value]]) -> None:
    for batch in batches:
        assert batch.changed or batch.deleted
        assert len(batch.changed) + len(batch.deleted) <= 3
        for value in batch.deleted:
            believed.remove(value)  # fails for what it never heard of
        for value in batch.changed:
            assert value not in believed, "news that are none"
            believed[:] = [old for old in believed if old[0] != value[0]] + [value]


@given(OPERATIONS)
def test_the_listener_believes_what_is_so(operations: list[tuple[object, ...]]) -> None:
    known: Known[Value] = Known()
    model: dict[str, tuple[str, Value | None]] = {}
    believed: list[Value] = []
    for operation in [*operations, ("tell",)]:
        apply(known, model, operation)
        if operation == ("tell",):
            hear(believed, list(known.batches(most=3)))
            assert sorted(believed) == sorted(value for _, value in model.values() if value is not None)
            assert list(known.batches(most=3)) == []
    assert len(known) == len(believed)
