"""What agents and reflectors both follow of the cluster, and the facts that their intent follows from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from bgpd.config_peers import MAX_PASSWORD
from bgpd.kube import resources
from bgpd.kube.custom_values import BgpAddressPool, BgpCluster, BgpPolicy, Reflector, SecretKey, Topology
from bgpd.kube.following import Following, Table
from bgpd.kube.intent import ClusterFacts, Gateway, Problem
from bgpd.kube.known_nodes import keep_addresses
from bgpd.kube.objects import Node, Secret
from bgpd.kube.options import KubeOptions
from bgpd.kube.watch import Batch
from bgpd.node.drain import IN_SERVICE, DrainPlan
from routes.prefix import Family
from routes.route_policy import RoutePolicy


class ClusterTables:
    """The few objects that everybody needs: BGPCluster, peers, policies, Secrets, and this host's Node."""

    def __init__(self, options: KubeOptions, following: Following, changed: Callable[[], None]) -> None:
        """`changed` is called whenever facts may be others than before."""
        self._options = options
        self._following = following
        self._changed = changed
        self._passwords: dict[SecretKey, str] = {}
        self._policies: dict[str, RoutePolicy] = {}
        self._reflectors: tuple[Reflector, ...] = ()
        """The last ones that a BGPCluster named."""
        self.clusters = following.follow(resources.CLUSTERS, self._clusters_changed)
        self.peers = following.follow(resources.PEERS, self._noted)
        self.own = following.follow(resources.node(options.node), self._noted, keep_addresses)
        self.policies: Table[BgpPolicy] | None = None
        self.secrets: dict[str, Table[Secret]] = {}
        """By name, because each is followed alone."""

    def follow_what_is_named(self) -> None:
        """Policies and Secrets cost the API server a watch only on hosts where something names them."""
        if self.cluster is None:  # lost, and made again before what it names: nothing is forgotten
            return
        names = self._policies_named()
        if names and self.policies is None:
            self.policies = self._following.follow(resources.POLICIES, self._policies_changed)
        elif not names and self.policies is not None:
            self._following.drop(self.policies)
            self.policies = None
        for name in self._policies.keys() - names - self._policies_there():
            del self._policies[name]
        keys = self._secrets_named()
        for key in self._passwords.keys() - set(keys):
            del self._passwords[key]
        named = {key.name for key in keys}
        for name in named - self.secrets.keys():
            resource = resources.secret(self._options.namespace, name)
            self.secrets[name] = self._following.follow(resource, self._noted)
        for name in self.secrets.keys() - named:
            self._following.drop(self.secrets.pop(name))

    def _policies_there(self) -> set[str]:
        return set() if self.policies is None else {each.name for each in self.policies.values.values()}

    def kept(self) -> list[Problem]:
        """What was deleted while something names it, and stays in use."""
        gone = self._policies.keys() - self._policies_there()
        text = "deleted, and still named: the last one stays in use"
        found = [Problem("BGPPolicy", name, "Deleted", text) for name in gone]
        for key in self._passwords.keys() & set(self._secrets_named()):
            if self._secret_value(key) is None:
                text = f"there is no usable key {key.key} any more: its last password serves until a restart"
                found.append(Problem("Secret", key.name, "Deleted", text))
        return found

    def _policies_named(self) -> set[str]:
        used = [peer.policies for peer in self.peers.values.values()]
        used += [self.cluster.policies] if self.cluster is not None else []
        return {name for policies in used for name in (*policies.imports, *policies.exports)}

    def _secrets_named(self) -> list[SecretKey]:
        """Those of the cluster and of the peers that are for this host."""
        node = self.node
        labels = {} if node is None else node.labels
        keys = [peer.password_secret for peer in self.peers.values.values() if peer.nodes.matches(labels)]
        keys += [self.cluster.password_secret] if self.cluster is not None else []
        return [key for key in keys if key is not None]

    @property
    def synced(self) -> bool:
        """Whether all of them were heard of."""
        secrets = all(table.synced for table in self.secrets.values())
        policies = self.policies is None or self.policies.synced
        return self.clusters.synced and self.peers.synced and self.own.synced and secrets and policies

    @property
    def cluster(self) -> BgpCluster | None:
        """The BGPCluster.  One that was deleted and made again names no reflectors before the controller has
        looked at it: until then its predecessor's serve, or every pod would be cut off."""
        found = next(iter(self.clusters.values.values()), None)
        if found is None or not self._names_none(found):
            return found
        return replace(found, status=replace(found.status, reflectors=self._reflectors))

    @staticmethod
    def _names_none(cluster: BgpCluster) -> bool:
        return cluster.topology is Topology.REFLECTOR and not cluster.status.reflectors

    @property
    def node(self) -> Node | None:
        return self.own.named(self._options.node)

    def facts(
        self,
        gateways: Mapping[Family, Gateway],
        nodes: Sequence[Node] = (),
        pools: Sequence[BgpAddressPool] = (),
        drain: DrainPlan = IN_SERVICE,
    ) -> ClusterFacts | None:
        """What the intent follows from; None while there is no BGPCluster, or no Node with an address."""
        cluster, node = self.cluster, self.node
        if cluster is None or node is None or not node.addresses:
            return None
        return ClusterFacts(
            base=self._options.host,
            node=node,
            cluster=cluster,
            peers=self.peers.in_order(),
            policies=dict(self._policies),
            nodes=nodes,
            passwords=self.password,
            gateways=gateways,
            pools=pools,
            drain=drain,
        )

    def password(self, key: SecretKey) -> str | None:
        """The password that a Secret holds, or held: one that vanishes ends no session that it protects."""
        found = self._secret_value(key)
        if found is not None:
            self._passwords[key] = found
        return self._passwords.get(key)

    def _secret_value(self, key: SecretKey) -> str | None:
        table = self.secrets.get(key.name)
        secret = None if table is None else table.named(key.name)
        written = None if secret is None else secret.data.get(key.key)
        return None if written is None else password_of(written)

    def _clusters_changed(self, batch: Batch[BgpCluster]) -> None:
        for cluster in batch.changed:
            if not self._names_none(cluster):
                self._reflectors = cluster.status.reflectors
        self._changed()

    def _noted(self, _: object) -> None:
        self._changed()

    def _policies_changed(self, batch: Batch[BgpPolicy]) -> None:
        """One that is deleted goes when nothing names it any more: not the sessions that need it."""
        for policy in batch.changed:
            self._policies[policy.name] = policy.policy
        self._changed()


def password_of(written: bytes) -> str | None:
    """A TCP MD5 password (RFC 2385), without the newline that editors add; None where it can't be one."""
    try:
        text = written.decode("utf-8").removesuffix("\n")
    except UnicodeDecodeError:
        return None
    usable = 0 < len(text.encode()) <= MAX_PASSWORD and "\0" not in text and "\n" not in text
    return text if usable else None
