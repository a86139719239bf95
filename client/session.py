"""A Flower message -> the site it is for -> a reply.

In:  message, context.   Out: a reply message.
Never: a path from the server; exception text in a reply; a reply that did not go through the site's boundary.

In deployment the site's folder comes from the SuperNode's own configuration (`site-folder`), which the server cannot
see. Flower's simulation has no SuperNodes: there the run's `sites` says which folder a partition is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message

from fairsynth import plain_json
from fairsynth.errors import ConfigError
from fairsynth.federation import boundary
from fairsynth.federation.answering import answered
from fairsynth.federation.flower import check_size, encode, request_of
from fairsynth.federation.messages import Envelope

SITE_FOLDER = "site-folder"

Work = Callable[[Path, Envelope], Envelope]


def answer(message: Message, context: Context, work: Work) -> Message:
    """The reply to `message`: what `work` makes of the request at this site, or an error code."""

    def sized(root: Path, request: Envelope) -> Envelope:
        envelope = answered(root, request, work)
        check_size(envelope)
        return envelope

    envelope = boundary.answer(
        lambda: site_folder(context), lambda: request_of(message), sized, phase=message.metadata.message_type
    )
    return Message(encode(envelope), reply_to=message)


def site_folder(context: Context) -> Path:
    """The folder of this site. Raises ConfigError when neither SuperNode nor simulation names one."""
    if folder := context.node_config.get(SITE_FOLDER):
        return Path(str(folder))
    sites = plain_json.parse(str(context.run_config.get("sites") or "[]"), where="run configuration", error=ConfigError)
    partition = context.node_config.get("partition-id")
    if not isinstance(partition, int) or not 0 <= partition < len(sites):
        raise ConfigError.of(
            "no site folder",
            where="SuperNode configuration",
            expected=f"{SITE_FOLDER}",
            do=f"start the SuperNode with --node-config '{SITE_FOLDER}=\"/path\"'",
        )
    return Path(sites[partition]["folder"])
