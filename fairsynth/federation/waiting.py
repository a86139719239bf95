"""Who has not answered a request yet, and who is to be asked the same again.

In:  numbers of messages, losses.   Out: keys.   Never: a message's content; a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

Key = TypeVar("Key")

AT_ONCE = 64 << 20  # bytes of replies that are fetched together
OUTAGE_SECONDS = 5.0  # that Flower tries to reach a SuperLink which is away
SLOWEST = 5e6  # bytes a second from a SuperLink that is there


class Waiting(Generic[Key]):
    """The messages under way by their numbers, and the keys whose message, node or reply was lost, with a time."""

    def __init__(self) -> None:
        self._sent: dict[str, Key] = {}
        self._lost: dict[Key, float] = {}

    def __bool__(self) -> bool:
        return bool(self._sent or self._lost)

    @property
    def numbers(self) -> list[str]:
        """The messages under way."""
        return list(self._sent)

    def batches(self, size: int) -> Iterator[list[str]]:
        """The messages under way, as many at a time as may be fetched together where a reply is of `size` bytes."""
        numbers, many = self.numbers, max(1, AT_ONCE // max(size, 1))
        yield from (numbers[start : start + many] for start in range(0, len(numbers), many))

    def sent(self, keys: Iterable[Key], numbers: Iterable[str | None]) -> None:
        """Messages were sent; one without a number was not taken."""
        new = {number: key for key, number in zip(keys, numbers, strict=True) if number}
        self._sent |= new
        self._lost = {key: when for key, when in self._lost.items() if key not in new.values()}

    def answered(self, number: str) -> Key | None:
        """Whose reply this is, who is waited for no more; None where nobody waits for it."""
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


def is_outage(seconds: float, *, received: int, errors: bool = False) -> bool:
    """Whether the SuperLink was away while it was asked for replies: it took longer than so many bytes may take.

    Not where it answered with errors: it waits minutes for a reply that a site announced and does not hand over.
    """
    return not errors and seconds > OUTAGE_SECONDS + received / SLOWEST
