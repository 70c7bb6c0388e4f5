"""`[fib]`: which kernel entries are ours.

Protocol, table and metric together mark an entry as ours, and what is ours is changed and deleted
without asking.  So values that the kernel or another daemon uses for its own entries are refused here,
each with the reason: sharing them means that one side deletes the other's routes.
"""

from __future__ import annotations

from bgpd import config_values as values
from bgpd.config import FibConfig
from bgpd.config_table import Table
from routes.prefix import Family

_FRR = "is one that FRR's zebra takes for its own: it adopts such routes and deletes them when it stops"

FOREIGN_PROTOCOLS = {
    9: "is the kernel's, for router advertisements",
    **dict.fromkeys((11, 42, *range(186, 190), *range(191, 199)), _FRR),
    12: "is BIRD's, which deletes such routes when it starts",
    16: "is that of DHCP clients",
}
"""Values of rtm_protocol (rtnetlink(7), /etc/iproute2/rt_protos) that have an owner.  5 to 255 are free
to use otherwise; 186 is the one that everybody tries, because its name is `bgp`."""

FOREIGN_TABLES = {255: "is the kernel's table of local addresses"}

IPV6_DEFAULT_METRIC = 1024
"""What the kernel gives an IPv6 route that names no metric; `connected` has 256."""

_BIGGEST = 4294967295


def read_fib(table: Table) -> FibConfig:
    default = FibConfig()
    protocols = {number: f"{reason}; 179 is free" for number, reason in FOREIGN_PROTOCOLS.items()}
    fib = FibConfig(
        protocol=table.optional("protocol", _protocol(protocols), default.protocol),
        table=table.optional("table", values.integer(1, _BIGGEST, FOREIGN_TABLES), default.table),
        metric=table.optional("metric", values.integer(1, _BIGGEST), default.metric),
        unreachable_metric=table.optional(
            "unreachable_metric", values.integer(1, _BIGGEST), default.unreachable_metric
        ),
        multipath=table.optional("multipath", values.integer(1, 128), default.multipath),
        resolve_via_default=table.optional(
            "resolve_via_default", values.boolean, default.resolve_via_default
        ),
        onlink=table.distinct("onlink", values.prefix),
        preferred_source_ipv4=table.optional(
            "preferred_source_ipv4", values.global_unicast(Family.IPV4), None
        ),
        preferred_source_ipv6=table.optional(
            "preferred_source_ipv6", values.global_unicast(Family.IPV6), None
        ),
        hold_time=table.optional("hold_time", values.seconds(0, 3600), default.hold_time),
        deferral_time=table.optional("deferral_time", values.seconds(1, 86400), default.deferral_time),
    )
    if table.sound("metric", "unreachable_metric"):
        _check_metrics(table, fib)
    return fib


def _protocol(refused: dict[int, str]) -> values.Parse[int]:
    known = values.integer(5, 255, refused)

    def parse(value: object) -> int:
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 4:
            raise values.UnfitError(
                "is the kernel's own (0 to 4 are: redirect, kernel, boot, static); 179 is free"
            )
        return known(value)

    return parse


def _check_metrics(table: Table, fib: FibConfig) -> None:
    """`unreachable` must lose to every entry that carries packets, whichever came first."""
    key = "unreachable_metric" if "unreachable_metric" in table else "metric"
    if fib.unreachable_metric <= fib.metric:
        table.wrong(
            key, f"must leave unreachable_metric ({fib.unreachable_metric}) above metric ({fib.metric})"
        )
    elif fib.unreachable_metric <= IPV6_DEFAULT_METRIC:
        table.wrong(
            key,
            f"must be above {IPV6_DEFAULT_METRIC}, which IPv6 routes have that name no metric: "
            "otherwise the node's own pods lose to it",
        )
