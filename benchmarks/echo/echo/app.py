"""Both halves: the server sends the arrays of one training message in two forms, the sites send them back.

The journal gets one line a form: how many objects Flower makes of the message, and the seconds of each round.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fairsynth.config import StudyPlan
from fairsynth.federation.flower import encode
from fairsynth.federation.journal import Journal
from fairsynth.federation.messages import Envelope
from fairsynth.generator.model import initial_weights
from fairsynth.schemas import Arrays
from fairsynth.visits.cohort import shared_vocabulary

ROUNDS = 5  # of each form, in turn
CODES = 389  # as in the demo

server = ServerApp()
client = ClientApp()


@client.train()
def reply(message: Message, context: Context) -> Message:
    """The same content again."""
    return Message(message.content, reply_to=message)


@server.main()
def main(grid: Grid, context: Context) -> None:
    """Time both forms, in turn, round by round."""
    plan = StudyPlan.model_validate_json(Path(str(context.run_config["plan"])).read_text(encoding="utf-8"))
    journal = Journal(Path(str(context.run_config["workdir"])), progress=lambda _: None)
    while len(list(grid.get_node_ids())) < len(plan.roster):
        time.sleep(0.5)
    seconds: dict[str, list[float]] = {"many": [], "one": []}
    objects = {}
    for number in range(ROUNDS):
        arrays = _arrays(plan, seed=number)  # new values each round: equal ones would be sent once
        for form, content in (("many", _many(arrays)), ("one", _one(arrays))):
            objects[form] = _objects(content)
            seconds[form].append(_round(grid, content))
    for form, times in seconds.items():
        journal.append("timed", form=form, objects=objects[form], seconds=times)
    journal.append("finished")


def _arrays(plan: StudyPlan, *, seed: int) -> Arrays:
    """Weights and two moments of the demo's generator, random."""
    vocabulary = shared_vocabulary([f"DX//{code:03}" for code in range(CODES)], plan=plan)
    weights = initial_weights(vocabulary, plan.generator, seed=seed)
    rng = np.random.default_rng(seed)
    return {
        f"{part}/{name}": rng.normal(size=array.shape).astype(np.float32)
        for part in ("weight", "first", "second")
        for name, array in weights.items()
    }


def _many(arrays: Arrays) -> RecordDict:
    """An Array for each array, as Flower would have it."""
    record = ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
    return RecordDict({"arrays": record, "body": ConfigRecord({"kind": "train", "fields": "{}"})})


def _one(arrays: Arrays) -> RecordDict:
    """As FairSynth sends it."""
    return encode(Envelope(kind="train", fields="{}", arrays=arrays))


def _objects(content: Any) -> int:
    """Objects that Flower stores and sends for `content`."""
    return 1 + sum(_objects(child) for child in (content.children or {}).values())


def _round(grid: Grid, content: RecordDict) -> float:
    """Seconds until every site has sent `content` back."""
    start = time.monotonic()
    messages = [Message(content, dst_node_id=node, message_type="train") for node in grid.get_node_ids()]
    list(grid.send_and_receive(messages, timeout=600))
    return round(time.monotonic() - start, 2)
