"""Flower's Grid as a `Transport`: sites instead of node ids, a bounded wait instead of an endless one.

In:  requests by site.   Out: replies by site; a site that stays offline, is late or answers with an error is absent.
Never: a reply that belongs to no request; a name that a site claims for itself where nodes have registered names.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import TypeVar

from flwr.app import Message
from flwr.serverapp import Grid

from fairsynth.errors import FairSynthError, ProtocolError
from fairsynth.federation.flower import MESSAGE_TYPES, decode, encode, lifetime, size_of, withheld
from fairsynth.federation.messages import Envelope, named_site
from fairsynth.federation.waiting import Waiting, is_outage
from fairsynth.schemas import SiteId

ROSTER_SECONDS = 120.0  # to wait for the whole roster to come online, before the first message
POLL_SECONDS = 0.5  # between two looks for replies
AGAIN_SECONDS = 5.0  # before a node whose reply was lost is asked again
LOST = {3, 4, 5, 8}  # Flower's codes: message, reply or node unavailable, ClientApp crashed; the site said nothing

Key = TypeVar("Key", int, SiteId)

_log = logging.getLogger("flwr")


class GridTransport:
    """Carries envelopes over `grid` to the sites of `roster`.

    In deployment a node is known by the name under which its public key was registered. Simulated nodes have no names:
    with `simulated`, every node is asked the first request, and is known by the site id of its reply.
    """

    def __init__(self, grid: Grid, *, roster: Sequence[SiteId], simulated: bool) -> None:
        self._grid = grid
        self._roster = tuple(roster)
        self._nodes: dict[SiteId, int] = {}
        self._simulated = simulated

    def ask(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Iterator[tuple[SiteId, Envelope]]:
        """Send each site its request and yield the replies as they come, for at most `timeout` seconds."""
        if self._simulated and not self._nodes:
            yield from self._introduce(requests, timeout=timeout)
            return
        if not self._simulated:
            self._look_up()
        contents = {id(envelope): encode(envelope) for envelope in requests.values()}  # a broadcast is encoded once
        ttl = lifetime(timeout, contents.values(), sites=len(requests))
        kinds, nodes = {site: MESSAGE_TYPES[one.kind] for site, one in requests.items()}, self._nodes
        messages = {
            site: Message(contents[id(one)], dst_node_id=nodes[site], message_type=kinds[site], ttl=ttl)
            for site, one in requests.items()
            if site in nodes
        }
        yield from self._exchange(messages, timeout=timeout)

    def _introduce(self, requests: Mapping[SiteId, Envelope], *, timeout: float) -> Iterator[tuple[SiteId, Envelope]]:
        """Ask every simulated node the one first request, and learn which site it is."""
        self._wait(lambda: len(list(self._grid.get_node_ids())) >= len(self._roster))
        request = next(iter(requests.values()))
        kind = MESSAGE_TYPES[request.kind]
        content = encode(request)
        nodes = sorted(self._grid.get_node_ids())
        ttl = lifetime(timeout, [content], sites=len(nodes))
        messages = {node: Message(content, dst_node_id=node, message_type=kind, ttl=ttl) for node in nodes}
        for node, envelope in sorted(self._exchange(messages, timeout=timeout), key=itemgetter(0)):
            site = named_site(envelope)
            if site not in self._nodes:
                self._nodes[site] = node
                yield site, envelope

    def _look_up(self) -> None:
        """The node of each site by registered name; waits for the roster before the first message only."""
        first = not self._nodes
        if first:
            self._wait(lambda: set(self._roster) <= set(self._named()))
        self._nodes = self._named()
        if first and not set(self._roster) & set(self._nodes):
            raise ProtocolError.of(
                "no site is online",
                where=f"SuperLink, roster {', '.join(self._roster)}",
                expected="SuperNodes registered under the names of the roster",
                do="flwr supernode register KEY.pub --name SITE, then start the SuperNode",
            )

    def _named(self) -> dict[SiteId, int]:
        return {SiteId(node.name): int(node.node_id) for node in self._grid.get_nodes() if node.name in self._roster}

    def _wait(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ROSTER_SECONDS
        while not ready() and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)

    def _exchange(self, messages: Mapping[Key, Message], *, timeout: float) -> Iterator[tuple[Key, Envelope]]:
        """Replies by the key of their request, matched by message id: what a reply says of its origin is not used.

        Where the node, its process or the reply was lost, or the SuperLink was away, the node is asked the same again
        once it is online, until the time is up: a site answers a request that it has answered with the same reply. A
        damaged reply or another error of the node leaves its key out. Replies are fetched a few at a time; those that
        are there when the time is up still count.
        """
        deadline, waiting, over = (began := time.monotonic()) + timeout, Waiting[Key](), False
        size = max(map(size_of, messages.values()), default=1)
        waiting.sent(messages, self._grid.push_messages(list(messages.values())))
        while waiting and not over:
            over = time.monotonic() >= deadline  # one look more
            for few in waiting.batches(size):
                asked = time.monotonic()
                pulled = list(self._grid.pull_messages(few))
                again = (now := time.monotonic()) + AGAIN_SECONDS
                if is_outage(now - asked, received=sum(map(size_of, pulled)), withheld=withheld(pulled)):
                    waiting.lose_all(until=again)  # a request that was being handed out then is gone
                while pulled:
                    message = pulled.pop()
                    key = waiting.answered(message.metadata.reply_to_message_id, size=size_of(message))
                    if key is not None and message.has_error() and message.error.code in LOST:
                        waiting.lose([key], until=again)
                    envelope = None if key is None else _envelope(message)
                    del message
                    if key is not None and envelope is not None:
                        yield key, envelope
                    del envelope
            if waiting:
                time.sleep(POLL_SECONDS)
            if waiting.may_be_due(now=(now := time.monotonic())) and now < deadline:
                there = set(self._grid.get_node_ids())
                online = {key: message.metadata.dst_node_id in there for key, message in messages.items()}
                if due := waiting.due(now=now, online=online):
                    again_messages = [_again(messages[key], elapsed=now - began) for key in due]
                    waiting.sent(due, self._grid.push_messages(again_messages))


def _again(message: Message, *, elapsed: float) -> Message:
    """The same request as a new message, which ends when the first one would."""
    told, left = message.metadata, message.metadata.ttl - elapsed
    return Message(message.content, dst_node_id=told.dst_node_id, message_type=told.message_type, ttl=left)


def _envelope(message: Message) -> Envelope | None:
    """The reply in `message`, or None when there is none that can be read."""
    node = message.metadata.src_node_id
    if message.has_error():
        _log.warning("node %d: Flower error %d", node, message.error.code)
        return None
    try:
        return decode(message.content)
    except FairSynthError as error:
        _log.warning("node %d: %s", node, error)
        return None
