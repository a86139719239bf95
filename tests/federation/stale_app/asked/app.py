"""Both halves. Orders are files `order-<number>.json` in the server's folder; `done-<number>.json` says who came."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fairsynth import artefacts
from fairsynth.errors import ProtocolError
from fairsynth.federation.flower import encode, request_of
from fairsynth.federation.messages import Envelope, Failed
from server import transport

server = ServerApp()
client = ClientApp()


@client.train()
def train(message: Message, context: Context) -> Message:
    """Write down that the work began, as far as FairSynth lets it."""
    try:
        request = request_of(message)
    except ProtocolError as error:
        (Path(str(context.node_config["site-folder"])) / "refused.txt").write_text(str(error))
        return Message(encode(Failed(site="site-a", code=error.code).pack()), reply_to=message)
    with (Path(str(context.node_config["site-folder"])) / "asked.txt").open("a") as handle:
        handle.write(f"{json.loads(request.fields)['number']}\n")
    return Message(encode(Envelope(kind="trained", fields=request.fields)), reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Ask the site, order by order, until there is one to leave."""
    root = Path(str(context.run_config["workdir"]))
    link, number, make = transport.GridTransport(grid, roster=("site-a",), simulated=False), 0, transport.Message
    while True:
        path = root / f"order-{number}.json"
        while not path.is_file():
            time.sleep(0.1)
        order = json.loads(path.read_text())
        if order["leave"]:
            return
        kept = order["kept"]  # seconds that messages live, where they are to outlive the wait
        transport.Message = (lambda *told, kept=kept, **more: make(*told, **more | {"ttl": kept})) if kept else make
        request = Envelope(kind="train", fields=json.dumps({"number": number}))
        replies = dict(link.ask({"site-a": request}, timeout=order["wait"]))
        artefacts.write_json(root / f"done-{number}.json", sorted(replies))
        number += 1
