"""A budget that refills with time: `burst` at once, `rate` in a second.  Time comes as an argument."""

from __future__ import annotations

_ROUNDING = 1e-6


class TokenBucket:
    """Full at the start."""

    def __init__(self, burst: float, rate: float) -> None:
        self.burst, self.rate = burst, rate
        self._tokens, self._at = burst, float("-inf")

    def _refill(self, now: float) -> None:
        if now > self._at:
            if self._at > float("-inf"):
                self._tokens = min(self.burst, self._tokens + (now - self._at) * self.rate)
            self._at = now

    def take(self, now: float) -> bool:
        """Whether there was one to take."""
        self._refill(now)
        if self._tokens < 1.0 - _ROUNDING:
            return False
        self._tokens = max(self._tokens - 1.0, 0.0)
        return True

    def spend(self, now: float) -> None:
        """Take one, or what is left of it: for what can't be put off."""
        self._refill(now)
        self._tokens = max(self._tokens - 1.0, 0.0)

    def wait(self, now: float) -> float:
        """Seconds until there is one."""
        self._refill(now)
        return max(0.0, (1.0 - _ROUNDING - self._tokens) / self.rate)
