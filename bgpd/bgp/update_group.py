"""One update group: what peers that are told the same bytes are told.

Owns its log and what goes into it: the selection of the Loc-RIB, filtered by role and exported
(`routes.reflection`), or an aggregate in its place.  It knows its members by name alone; who reads the log,
and when, is `update_groups.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from bgpd.bgp.fanout import FanoutLog
from bgpd.bgp.group_encoder import GroupEncoder, Key
from routes.aggregates import Aggregates
from routes.path import LOCAL_PEER, Path, PathAttributes, PeerKind, PeerName, Source
from routes.peer import Negotiated
from routes.prefix import ADDRESS_SIZE, Address, Family, Prefix, format_address
from routes.reflection import (
    CLOSED,
    Border,
    Export,
    Role,
    exported,
    may_hear,
    next_hop_sizes,
    refused_by_community,
    unfit_next_hop,
    why_not,
)
from routes.route_policy import Outcome, compile_policies

_MEMORY = 4096
"""Attributes of which it is remembered what is told of them; a full memory is emptied."""


class GroupKey(NamedTuple):
    """What makes bytes differ."""

    family: Family
    role: Role
    export: Export
    four_octet: bool
    add_paths: int
    """Paths for each prefix (RFC 7911); 0 without ADD-PATH."""
    extended_next_hop: bool


class Identities:
    """Numbers that stand for peers and for their paths, the same for all clients and never used twice."""

    def __init__(self) -> None:
        self._sources: dict[PeerName, int] = {}
        self._next_source = 1
        self._path_ids: dict[PeerName, dict[int, int]] = {}
        self._next_path_id = 1

    def source(self, peer: PeerName) -> int:
        """The number of a peer, whichever session it uses."""
        source = self._sources.get(peer)
        if source is None:
            source = self._sources[peer] = self._next_source
            self._next_source += 1
        return source

    def path_id(self, peer: PeerName, received: int) -> int:
        """Ours, for a path of one source with one received ID (RFC 7911 section 3)."""
        of_peer = self._path_ids.setdefault(peer, {})
        path_id = of_peer.get(received)
        if path_id is None:
            path_id = of_peer[received] = self._next_path_id
            self._next_path_id += 1
        return path_id

    def forget(self, peer: PeerName) -> None:
        """The peer is gone, and nothing in the logs is of it."""
        self._path_ids.pop(peer, None)
        self._sources.pop(peer, None)


class _Remembered(NamedTuple):
    """What is told of recent attributes of a source, both kept so that their identities stay theirs."""

    attributes: PathAttributes
    source: Source
    told: PathAttributes | None


def _itself(told: Outcome) -> Outcome:
    return told


class UpdateGroup:
    """One log, what goes into it, and who reads it."""

    def __init__(
        self,
        key: GroupKey,
        member: Negotiated,
        role_of: Callable[[PeerName], Role],
        identities: Identities,
        border: Border = CLOSED,
    ) -> None:
        self.key = key
        self.address_size = ADDRESS_SIZE[key.family]
        self.members: set[PeerName] = set()
        self.encoder = GroupEncoder(key.family, member)
        self.log: FanoutLog[Key] = FanoutLog(self.encoder)
        self._role_of = role_of
        self._identities = identities
        self._next_hop_sizes = next_hop_sizes(key.family, extended=key.extended_next_hop)
        self._policies = compile_policies(key.export.policies, _itself) if key.export.policies else None
        self._remembered: dict[tuple[int, int], _Remembered] = {}
        self._draw(border)

    def forget_told(self) -> None:
        """A peer may have another role now, or the group another export."""
        self._remembered.clear()

    def _draw(self, border: Border) -> None:
        """What leaves; an aggregate needs a next hop of ours (RFC 4271 section 9.2.2.2)."""
        self.forget_told()
        key, own = self.key, self.key.export.next_hop
        self._border = border
        self._admits = border.admits[self.address_size] if key.role is Role.EXTERNAL else None
        mine = [each for each in border.aggregates if each.family is key.family]
        if key.role is not Role.EXTERNAL or own is None or len(own) not in self._next_hop_sizes:
            mine = []
        self._aggregates = Aggregates(mine)
        self._by_prefix = bool(key.add_paths or mine or self._policies is not None)

    @property
    def name(self) -> str:
        """For a person: `ipv4 client`, with what sets it apart."""
        key, export = self.key, self.key.export
        extra = {
            f"add-path {key.add_paths}": key.add_paths,
            "2-octet AS": not key.four_octet,
            "extended next hop": key.extended_next_hop,
            f"next hop {format_address(export.next_hop or Address(bytes(4)))}": export.next_hop is not None,
            f"local-pref {export.local_pref}": export.local_pref is not None,
            f"med {export.med}": export.med is not None,
            f"prepend {export.prepend}": export.prepend,
            " ".join(f"{each >> 16}:{each & 0xFFFF}" for each in export.communities): export.communities,
            " ".join(":".join(map(str, each)) for each in export.large_communities): export.large_communities,
            f"policies {','.join(policy.name for policy in export.policies)}": export.policies,
        }
        return " ".join((str(key.family), key.role.value, *(text for text, so in extra.items() if so)))

    @property
    def no_next_hop(self) -> str:
        """Why our own address can't be the next hop of anything here, in a sentence; empty when it can."""
        own = self.key.export.next_hop
        return "" if own is None or len(own) in self._next_hop_sizes else unfit_next_hop(own, self.key.family)

    def why_refused(self, path: Path) -> str:
        """Why the group is not told a path, in a sentence; empty when it is, or an aggregate instead."""
        if refused := self._why_kept(path):
            return refused
        return "" if self._aggregates.of(path.nlri) is not None else self.why_policies_refuse(path)

    def why_policies_refuse(self, path: Path) -> str:
        """Why the group's policies refuse a path, in a sentence; empty when they accept it."""
        told = self._asked(path)
        return "" if told is None or told.accepted else told.text

    def deciding_rule(self, path: Path) -> str:
        """The rule of the group's policies that accepts a path; empty without policies."""
        told = self._asked(path)
        return "" if told is None else told.rule

    def _asked(self, path: Path) -> Outcome | None:
        return None if self._policies is None else self._policies(path.nlri, path.attributes)

    def _why_kept(self, path: Path) -> str:
        """The same without policies, which an aggregate's part is not asked about: it is not announced."""
        source, target = self._role_of(path.source.peer), self.key.role
        if not may_hear(source, target):
            return why_not(source, target)
        if refused := refused_by_community(path.attributes, target):
            return refused
        if target is Role.EXTERNAL and (kept := self._border.why_kept(path.nlri)):
            return kept
        next_hop = self.key.export.next_hop or path.attributes.next_hop
        return "" if len(next_hop) in self._next_hop_sizes else unfit_next_hop(next_hop, self.key.family)

    def aggregate_of(self, nlri: Prefix) -> Prefix | None:
        """The aggregate that the group is told, if any, in place of a prefix that it could be told."""
        return self._aggregates.of(nlri)

    def aggregates(self) -> list[Prefix]:
        """The aggregates that the group is told now."""
        return self._aggregates.announced()

    def aggregate(self, nlri: Prefix) -> Path | None:
        """An aggregate as a path of this speaker's own; None while it stands for nothing."""
        asn, bgp_id = self.key.export.asn, self._border.bgp_id
        attributes = self._aggregates.attributes(nlri, asn, bgp_id)
        if attributes is None:
            return None
        return Path(nlri, attributes, Source(LOCAL_PEER, PeerKind.LOCAL, asn, bgp_id, Address(bytes(4))))

    def told(self, path: Path) -> PathAttributes:
        """What the members are told of a path."""
        return exported(path, self.key.role, self.key.export, self._asked(path))

    def put(self, selected: Iterable[tuple[Prefix, tuple[Path, ...], tuple[Path, ...]]]) -> None:
        """Take new selections: prefix, what was selected before, and what is now."""
        if self._by_prefix:
            self._put_paths(selected)
            return
        told: dict[tuple[int, PeerName], tuple[PathAttributes, list[Key]] | None] = {}
        removed: list[Key] = []
        admits, attributes, peer, keys = self._admits, None, None, removed
        for nlri, before, after in selected:
            if not after:
                removed.append(nlri)
                continue
            path = after[0]
            if before and before[0] is path:
                continue  # only what forwards beside it changed
            if path.attributes is not attributes or path.source.peer is not peer:
                attributes, peer = path.attributes, path.source.peer
                known = (id(attributes), peer)
                if known not in told:
                    mine = self._told_of(path)
                    told[known] = None if mine is None else (mine, [])
                batch = told[known]
                keys = removed if batch is None else batch[1]
            (removed if admits and not admits(nlri) else keys).append(nlri)
        if removed:
            self.log.remove_all(removed)
        for (_, source), batch in told.items():
            if batch is not None and batch[1]:
                self.log.put_all(batch[1], self._identities.source(source), batch[0])

    def _told_of(self, path: Path) -> PathAttributes | None:
        """What the members are told of a path's attributes, whatever its prefix; None for nothing."""
        attributes, source = path.attributes, path.source
        known = self._remembered.get((id(attributes), id(source)))
        if known is not None:
            return known.told
        if len(self._remembered) >= _MEMORY:
            self._remembered.clear()
        told = self._tell(path)
        self._remembered[id(attributes), id(source)] = _Remembered(attributes, source, told)
        return told

    def _tell(self, path: Path) -> PathAttributes | None:
        attributes, role = path.attributes, self.key.role
        if refused_by_community(attributes, role) or not may_hear(self._role_of(path.source.peer), role):
            return None
        next_hop = self.key.export.next_hop or attributes.next_hop
        return exported(path, role, self.key.export) if len(next_hop) in self._next_hop_sizes else None

    def _put_paths(self, selected: Iterable[tuple[Prefix, tuple[Path, ...], tuple[Path, ...]]]) -> None:
        """The same where a prefix can have several paths, or an aggregate can take its place, or where
        policies are asked, whose answer depends on the prefix."""
        most, touched = self.key.add_paths or 1, dict[Prefix, None]()
        told: dict[tuple[int, PeerName], PathAttributes] = {}
        for nlri, before, after in selected:
            now = [path for path in after[:most] if not self._why_kept(path)]
            aggregate = self._aggregates.of(nlri)
            if aggregate is not None:
                self._aggregates.note(aggregate, nlri, now[0].attributes.origin if now else None)
                touched[aggregate] = None
                now = []
            elif self._policies is not None:
                now = [path for path in now if self._policies(nlri, path.attributes).accepted]
            keys = {self._key(nlri, path.source.peer, path.path_id): path for path in now}
            # Without ADD-PATH all paths of a prefix have one key, and a key changes once in a commit.
            for key in dict.fromkeys(self._key(nlri, p.source.peer, p.path_id) for p in before):
                if key not in keys and (aggregate is None or key != self._key(aggregate)):
                    self.log.remove(key)
            for key, path in keys.items():
                known = (id(path.attributes), path.source.peer)
                mine = told.get(known)
                if mine is None or self._policies is not None:
                    mine = told[known] = self.told(path)
                self._announce(key, path.source.peer, mine)
        for aggregate in touched:
            self._put_aggregate(aggregate)

    def _key(self, nlri: Prefix, peer: PeerName = LOCAL_PEER, path_id: int = 0) -> Key:
        return (nlri, self._identities.path_id(peer, path_id)) if self.key.add_paths else nlri

    def _announce(self, key: Key, peer: PeerName, mine: PathAttributes) -> None:
        source = self._identities.source(peer)
        if self.log.entry(key) != (source, mine):
            self.log.put(key, source, mine)

    def _put_aggregate(self, nlri: Prefix) -> None:
        path, key = self.aggregate(nlri), self._key(nlri)
        if path is None or self.why_policies_refuse(path):
            self.log.remove(key)
        else:
            self._announce(key, LOCAL_PEER, self.told(path))

    def revise(self, export: Export, selected: Iterable[tuple[Prefix, tuple[Path, ...]]]) -> None:
        """Export otherwise from now on, and announce and withdraw what that changes."""
        self.key = self.key._replace(export=export)
        self._policies = compile_policies(export.policies, _itself) if export.policies else None
        self.redraw(self._border, selected)

    def redraw(self, border: Border, selected: Iterable[tuple[Prefix, tuple[Path, ...]]]) -> None:
        """Take another border, and announce and withdraw what that changes."""
        before = self._aggregates.announced()
        self._draw(border)
        self._put_paths((nlri, paths, paths) for nlri, paths in selected)
        self.log.commit()
        for nlri in before:
            key = self._key(nlri)
            entry = self.log.entry(key)
            if entry is not None and entry[0] == self._identities.source(LOCAL_PEER):
                self._put_aggregate(nlri)
        self.log.commit()
