"""The kinds that the stand-in API server serves, and the rules of the real one that podbgp depends on.

Pure.  Each rule answers with the sentence that the real API server gives, shortened; what is not here is not
checked, so a test that needs more belongs on the real API server.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from bgpd.lab.stand_in_api_server_json import Json, child, text

CUSTOM_GROUP = "podbgp.dev"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Kind:
    """One resource.  `keeps_status`: a create may bring one; `blind`: a PUT without a version is taken."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = False
    has_status: bool = False
    keeps_status: bool = False
    generation: bool = False
    blind: bool = True
    custom: bool = False
    short: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        return f"/apis/{self.api_version}" if self.group else f"/api/{self.version}"

    def path(self, name: str = "", namespace: str = "") -> str:
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.root}{middle}/{self.plural}" + (f"/{name}" if name else "")


_CUSTOM = {
    "BGPCluster": ("bgpclusters", "bgpc"), "BGPPeer": ("bgppeers", "bgpp"),
    "BGPPolicy": ("bgppolicies", "bgppol"), "BGPAdvertisement": ("bgpadvertisements", "bgpadv"),
    "BGPAddressPool": ("bgpaddresspools", "bgppool"), "BGPNodeState": ("bgpnodestates", "bgpns"),
}  # fmt: skip

KINDS: tuple[Kind, ...] = (
    Kind("", "v1", "namespaces", "Namespace", has_status=True),
    Kind("", "v1", "nodes", "Node", has_status=True, keeps_status=True, short=("no",)),
    Kind("", "v1", "pods", "Pod", namespaced=True, has_status=True, keeps_status=True, short=("po",)),
    Kind("", "v1", "services", "Service", namespaced=True, has_status=True, short=("svc",)),
    Kind("", "v1", "secrets", "Secret", namespaced=True),
    Kind("", "v1", "configmaps", "ConfigMap", namespaced=True, short=("cm",)),
    Kind("", "v1", "serviceaccounts", "ServiceAccount", namespaced=True, short=("sa",)),
    Kind("", "v1", "events", "Event", namespaced=True, short=("ev",)),
    Kind("events.k8s.io", "v1", "events", "Event", namespaced=True, short=("ev",)),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", namespaced=True, generation=True),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", namespaced=True, blind=False),
    Kind("apps", "v1", "daemonsets", "DaemonSet", namespaced=True, has_status=True, generation=True),
    Kind("apps", "v1", "deployments", "Deployment", namespaced=True, has_status=True, generation=True),
    Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition",
         has_status=True, generation=True, blind=False, short=("crd",)),
    *(Kind(CUSTOM_GROUP, "v1alpha1", plural, kind, has_status=True, generation=True, blind=False, custom=True,
           short=(short,)) for kind, (plural, short) in _CUSTOM.items()),
)  # fmt: skip


def defined_kind(definition: Json) -> tuple[Kind, Json] | None:
    """The kind that a CustomResourceDefinition adds, and its schema."""
    spec = child(definition, "spec")
    versions = spec.get("versions")
    names = child(spec, "names")
    for version in versions if isinstance(versions, list) else []:
        if isinstance(version, dict) and version.get("served"):
            status = "status" in child(version, "subresources")
            short = names.get("shortNames")
            kind = Kind(
                text(spec, "group"), text(version, "name"), text(names, "plural"), text(names, "kind"),
                namespaced=text(spec, "scope") == "Namespaced", has_status=status, generation=True,
                blind=False, custom=True, short=tuple(map(str, short if isinstance(short, list) else ())),
            )  # fmt: skip
            return kind, child(version, "schema", "openAPIV3Schema")
    return None


def problem_with(kind: Kind, value: Json, before: Json | None) -> str:
    """Why the real API server answers 422 to this object; empty: it does not."""
    name = text(value, "metadata", "name")
    if not _NAME.fullmatch(name):
        return f'metadata.name: Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of ...'
    if kind.kind == "Node" and before is not None:
        old, new = child(before, "spec"), child(value, "spec")
        if text(old, "podCIDR") and old.get("podCIDRs") != new.get("podCIDRs"):
            return 'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid'
    if kind.kind == "Service" and before is not None:
        old, new = child(before, "spec"), child(value, "spec")
        same_type = text(old, "type") == text(new, "type")
        if same_type and text(old, "clusterIP") and text(old, "clusterIP") != text(new, "clusterIP"):
            return f'spec.clusterIP: Invalid value: "{text(new, "clusterIP")}": field is immutable'
    if kind.kind == "EndpointSlice" and text(value, "addressType") not in ("IPv4", "IPv6", "FQDN"):
        return "addressType: Required value: must specify address type"
    if kind.kind == "BGPCluster" and name != "default":
        return 'metadata.name: Invalid value: the only BGPCluster is named "default"'
    return ""


def fields_of(kind: Kind, value: Json) -> dict[str, str]:
    """What field selectors may ask for: every kind's names, and a Pod's and an Event's own."""
    metadata = child(value, "metadata")
    fields = {"metadata.name": text(metadata, "name"), "metadata.namespace": text(metadata, "namespace")}
    if kind.kind == "Pod":
        fields["spec.nodeName"] = text(value, "spec", "nodeName")
        fields["status.phase"] = text(value, "status", "phase")
    if kind.kind == "Node":
        fields["spec.unschedulable"] = "true" if child(value, "spec").get("unschedulable") else "false"
    if kind.kind == "Event":
        for name in ("kind", "name", "namespace", "uid"):
            fields[f"involvedObject.{name}"] = text(value, "involvedObject", name)
        fields["reason"] = text(value, "reason")
    return fields


class SelectorError(ValueError):
    """A selector that the API server refuses."""


def field_matcher(selector: str) -> list[tuple[str, bool, str]]:
    """(field, equal?, value) of each part of a field selector."""
    parts = []
    for part in filter(None, selector.split(",")):
        found = re.fullmatch(r"([A-Za-z.]+)(!=|==?)(.*)", part)
        if found is None:
            raise SelectorError(f"invalid selector: {selector!r}; can't understand {part!r}")
        parts.append((found[1], found[2] != "!=", found[3]))
    return parts


@dataclass(frozen=True)
class Wants:
    """A label's key, and what must hold for it."""

    key: str
    operator: str  # in, notin, exists, missing
    values: frozenset[str] = frozenset()

    def match(self, labels: dict[str, str]) -> bool:
        if self.operator in ("exists", "missing"):
            return (self.key in labels) == (self.operator == "exists")
        if self.operator == "in":
            return self.key in labels and labels[self.key] in self.values
        return self.key not in labels or labels[self.key] not in self.values


_SET = re.compile(r"([-A-Za-z0-9_./]+)\s+(in|notin)\s+\(([^()]*)\)")
_EQUAL = re.compile(r"([-A-Za-z0-9_./]+)\s*(==|=|!=)\s*([-A-Za-z0-9_.]*)")
_EXISTS = re.compile(r"(!?)\s*([-A-Za-z0-9_./]+)")


def label_matcher(selector: str) -> list[Wants]:
    """The parts of a label selector; commas inside parentheses separate values."""
    parts = []
    for part in filter(None, (p.strip() for p in re.split(r",(?![^()]*\))", selector))):
        if found := _SET.fullmatch(part):
            values = frozenset(value.strip() for value in found[3].split(","))
            parts.append(Wants(found[1], found[2], values))
        elif found := _EQUAL.fullmatch(part):
            parts.append(Wants(found[1], "notin" if found[2] == "!=" else "in", frozenset({found[3]})))
        elif found := _EXISTS.fullmatch(part):
            parts.append(Wants(found[2], "missing" if found[1] else "exists"))
        else:
            raise SelectorError(f"unable to parse requirement: {part!r}")
    return parts
