"""What may go wrong between us and an API server, named by what a caller does next.

Kept apart from the client, so that pure code can name these kinds without importing the kubernetes package.
"""

from __future__ import annotations

from bgpd.errors import PodbgpError


class KubeError(PodbgpError):
    """An API call that did not do what it should; `status` is 0 where no answer came."""

    def __init__(
        self, status: int, reason: str, message: str, *, where: str = "", retry_after: float | None = None
    ) -> None:
        self.status, self.reason, self.message = status, reason, message
        self.where, self.retry_after = where, retry_after
        super().__init__(": ".join(part for part in (where, str(status or ""), reason, message) if part))


class NotFound(KubeError):  # noqa: N818 - Kubernetes' own names for these answers
    """404: the object, or the whole kind (a custom resource definition that is not installed)."""


class Conflict(KubeError):  # noqa: N818 - as above
    """409: created already (`reason` AlreadyExists), or changed since we read it: read and decide again."""


class Gone(KubeError):  # noqa: N818 - as above
    """410: the history that we asked for is compacted away: list again."""


class Refused(KubeError):  # noqa: N818 - as above
    """401 or 403: our token or our RBAC role is not enough; trying again helps only after someone acts."""


class Invalid(KubeError):  # noqa: N818 - as above
    """400 or 422: the API server's validation refuses the object; the message names the field."""


class Unavailable(KubeError):  # noqa: N818 - as above
    """No answer, 429 or 5xx: wait (at least `retry_after`), then try again."""


class Nonsense(KubeError):  # noqa: N818 - as above
    """No API server answers so: not JSON, too long, cut short, another kind.  Nothing may follow from it."""


def error_for(
    status: int, reason: str, message: str, *, where: str = "", retry_after: float | None = None
) -> KubeError:
    """The kind of error that an HTTP status (0: no answer) stands for."""
    kinds: dict[int, type[KubeError]] = {
        0: Unavailable, 400: Invalid, 401: Refused, 403: Refused, 404: NotFound, 409: Conflict, 410: Gone,
        422: Invalid, 429: Unavailable,
    }  # fmt: skip
    kind = kinds.get(status, Unavailable if status >= 500 else Nonsense if status < 400 else KubeError)
    return kind(status, reason, message, where=where, retry_after=retry_after)
