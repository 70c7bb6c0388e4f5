"""The lab's own certificate authority: how its API server and the clients of it know each other.

Owns a folder that only root reads, made afresh for each lab and removed with it: the authority, the API
server's certificate, the key that signs service account tokens, and for each client a certificate whose
subject is its user (CN) and its groups (O), as kubelets have it.  All of it is made by `openssl`, and of no
use once the lab is gone.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bgpd.lab.command import find_tool, run

DAYS = "30"
CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
ADMINS = "system:masters"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a client is to the API server."""

    name: str
    """Of its files."""
    user: str
    groups: tuple[str, ...] = ()

    @property
    def subject(self) -> str:
        return "".join(f"/O={group}" for group in self.groups) + f"/CN={self.user}"


ADMIN = Identity("admin", "lab-admin", (ADMINS,))


def service_account(namespace: str, name: str) -> Identity:
    """To the API server's authorization the same as a pod that runs under this account."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
    return Identity(f"{namespace}-{name}", f"system:serviceaccount:{namespace}:{name}", groups)


class Authority:
    """Signs what a lab needs; construct it, then `create`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self.server_certificate = folder / "apiserver.pem"
        self.server_key = folder / "apiserver.key"
        self.account_key = folder / "service-accounts.key"
        self._key = folder / "ca.key"
        self._openssl = find_tool("openssl", "openssl")

    def create(self, server_names: Sequence[str]) -> None:
        """Make the authority and the API server's certificate, for names such as `IP:192.0.2.1`."""
        self.folder.mkdir(mode=0o700, parents=True)
        own = ["req", "-x509", *CURVE, "-subj", "/CN=podbgp lab", "-days", DAYS]
        self._run(*own, "-keyout", str(self._key), "-out", str(self.certificate))
        self._sign("apiserver", "/CN=kube-apiserver", f"subjectAltName={','.join(server_names)}")
        self._run("genrsa", "-out", str(self.account_key), "2048")

    def path(self, identity: Identity, suffix: str = "") -> Path:
        """Where this client's kubeconfig is, or will be."""
        return self.folder / f"{identity.name}{suffix}.kubeconfig"

    def kubeconfig(self, identity: Identity, server: str, suffix: str = "") -> Path:
        """A kubeconfig for this client and this address of the API server."""
        path = self.path(identity, suffix)
        certificate, key = self.folder / f"{identity.name}.pem", self.folder / f"{identity.name}.key"
        if not certificate.exists():
            self._sign(identity.name, identity.subject, "extendedKeyUsage=clientAuth")
        # JSON is YAML.
        path.write_text(json.dumps(_kubeconfig(server, self.certificate, certificate, key), indent=2))
        return path

    def _sign(self, name: str, subject: str, extension: str) -> None:
        """A key and a certificate of this name."""
        request = self._run(
            "req", "-new", *CURVE, "-subj", subject, "-keyout", str(self.folder / f"{name}.key")
        )
        extensions = self.folder / f"{name}.extensions"
        extensions.write_text(f"{extension}\n")
        signed_by = ["-CA", str(self.certificate), "-CAkey", str(self._key), "-days", DAYS]
        serial = ["-set_serial", f"0x{secrets.token_hex(8)}", "-extfile", str(extensions)]
        certificate = self._run("x509", "-req", *signed_by, *serial, text=request)
        (self.folder / f"{name}.pem").write_text(certificate)

    def _run(self, *words: str, text: str = "") -> str:
        return run([self._openssl, *words], text=text)


def _kubeconfig(server: str, authority: Path, certificate: Path, key: Path) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {"name": "lab", "cluster": {"server": server, "certificate-authority": str(authority)}},
        ],
        "users": [{"name": "lab", "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
        "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        "current-context": "lab",
    }
