"""What goes wrong on the host besides routes.

A `HostError` names the file or tool, what was to be done, and what the host said.  It never ends the agent:
routes come first, and whoever sets something up tries again at the next change.
"""

from __future__ import annotations

from bgpd.errors import PodbgpError


class HostError(PodbgpError):
    """The host refused what the agent wanted to set up."""
