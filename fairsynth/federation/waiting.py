"""Who has not answered a request yet, and who is to be asked the same again.

In:  numbers of messages, losses.   Out: keys.   Never: a message's content; a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key")

AT_ONCE = 64 << 20  # bytes of replies that are fetched together
FIRST = 8  # replies that are, as long as nobody knows how large they are
OUTAGE_SECONDS = 5.0  # that Flower tries to reach a SuperLink which is away
SLOWEST = 25e6  # bytes a second of replies that are fetched and folded


class Waiting(Generic[Key]):
    """The messages under way by their numbers, and the keys whose message, node or reply was lost, with a time."""

    def __init__(self) -> None:
        self._sent: dict[str, Key] = {}
        self._lost: dict[Key, float] = {}
        self._largest = 0  # bytes of a reply so far

    def __bool__(self) -> bool:
        return bool(self._sent or self._lost)

    @property
    def numbers(self) -> list[str]:
        """The messages under way."""
        return list(self._sent)

    def batches(self, request: int) -> Iterator[list[str]]:
        """The messages under way, as many at a time as may be fetched together where a reply is as large as the largest
        before it, or as the `request` of so many bytes.
        """
        left = self.numbers
        while left:
            many = max(1, AT_ONCE // max(request, self._largest, 1))
            many = many if self._largest else min(many, FIRST)
            yield left[:many]
            left = left[many:]

    def sent(self, keys: Iterable[Key], numbers: Iterable[str | None]) -> None:
        """Messages were sent; one without a number was not taken."""
        new = {number: key for key, number in zip(keys, numbers, strict=True) if number}
        self._sent |= new
        self._lost = {key: when for key, when in self._lost.items() if key not in new.values()}

    def answered(self, number: str, *, size: int = 0) -> Key | None:
        """Whose reply of `size` bytes this is, who is waited for no more; None where nobody waits for it."""
        self._largest = max(self._largest, size)
        key = self._sent.get(number)
        if key is not None:
            self._sent = {other: one for other, one in self._sent.items() if one != key}
            self._lost.pop(key, None)
        return key

    def lose(self, keys: Iterable[Key], *, until: float) -> None:
        """These are to be asked again, from the time `until` on."""
        self._lost |= dict.fromkeys(keys, until)

    def lose_all(self, *, until: float) -> None:
        """All that are under way are to be asked again; a reply that comes in spite of it counts."""
        self.lose(self._sent.values(), until=until)

    def due(self, *, now: float, online: Mapping[Key, bool]) -> list[Key]:
        """Who is to be asked again now."""
        return [key for key, when in self._lost.items() if now >= when and online[key]]

    def may_be_due(self, *, now: float) -> bool:
        """Whether somebody is, if they are online."""
        return any(now >= when for when in self._lost.values())


def is_outage(seconds: float, *, received: int, withheld: bool) -> bool:
    """Whether the SuperLink was away while it was asked for replies: it took longer than so many bytes may take.

    Not where a reply was announced and `withheld`: Flower waits minutes for it, then says so.
    """
    return not withheld and seconds > OUTAGE_SECONDS + received / SLOWEST
