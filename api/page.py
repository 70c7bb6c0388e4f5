"""Where a page of a listing ends, and where the next one begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


class Page:
    """Cuts a listing after about `size` items, never between two of one key; 0 cuts nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.next_token = ""
        """Where to go on, once the cut was made: the last key of this page."""

    def cut(self, items: Iterator[Item | None], key_of: Callable[[Item], object]) -> Iterator[Item | None]:
        """The items of this page."""
        count = 0
        last: object = None
        for item in items:
            if item is not None:
                key = key_of(item)
                if self._size and count >= self._size and key != last:
                    self.next_token = str(last)
                    return
                last = key
                count += 1
            yield item
