"""What the server has of one site: everything in a plain study, nothing in a masked one."""

from __future__ import annotations

import numpy as np
import pytest
from canaries import hits, patterns
from code_presence import masked_update, site_update
from federation_toys import PLAIN, InProcess, toy_plan, toy_sites
from masked_toys import masked_plan, masked_sites
from sklearn.metrics import roc_auc_score

from fairsynth.federation.flower import encode
from fairsynth.federation.messages import Envelope
from fairsynth.federation.rounds import run_study

# unlike any number that the other sites, sums or hashes would hold by chance
MEMBERS = [[413_131, 141_593], [171_828, 61_803]]
CODES = {"DX//CCS//1": 555_051, "DX//CCS//2": 666_067, "RX//aspirin": 444_443}
VISITS = 1_618_033
NLL = 123_456.789_012


class Tapped(InProcess):
    """Keeps the bytes of every message, as Flower would carry them."""

    def __init__(self, sites):
        super().__init__(sites)
        self.seen = []

    def ask(self, requests, *, timeout):
        for site, request in requests.items():
            self.see("request", site, request)
        for site, reply in super().ask(requests, timeout=timeout):
            self.see("reply", site, reply)
            yield site, reply

    def see(self, direction, site, envelope):
        self.seen.append((f"{direction} {envelope.kind} {site}", wire(envelope), envelope.kind == "sealed"))


def wire(envelope: Envelope) -> bytes:
    record = encode(envelope)
    return record["arrays"]["safetensors"].data + record["body"]["fields"].encode()


def canary_toys(plan):
    toys = toy_sites(plan)
    one = toys["site-b"]
    one.members, one.codes, one.visits = MEMBERS, CODES, VISITS
    train = one.train

    def secret(request):
        reply = train(request)
        fields = reply.fields.replace('"nll_train":500.0', f'"nll_train":{NLL}')
        assert fields != reply.fields
        return Envelope(kind=reply.kind, fields=fields, arrays=reply.arrays)

    one.train = secret
    return toys


def wanted(sent_plainly):
    """What only site-b knows: counts, a loss, and its weights after a round, by their bytes."""
    values = {f"members {i}": value for i, value in enumerate(np.ravel(MEMBERS))}
    values |= {f"patients of {code}": number for code, number in CODES.items()}
    values |= {"visits": VISITS, "nll": NLL, "n": int(np.sum(MEMBERS))}
    weights = {
        f"{reply.kind} {name}": array
        for reply in sent_plainly
        if reply.kind == "trained"
        for name, array in reply.arrays.items()
        if array.nbytes >= 64
    }
    return patterns(values, weights)


def study(folder, *, masked):
    """What site-b said before it was masked, and all that the server has."""
    changes = {"roster": ("site-a", "site-b", "site-c"), "quorum": 3, "privacy": PLAIN}
    plan = masked_plan() if masked else toy_plan(**changes)
    toys = canary_toys(plan)
    said = []
    answer = toys["site-b"].poison
    toys["site-b"].poison = lambda kind, envelope: said.append(envelope) or answer(kind, envelope)
    transport = Tapped(masked_sites(folder, plan, toys) if masked else toys)
    run_study(transport, plan=plan, root=folder / "server")
    disk = [
        (str(path.relative_to(folder)), path.read_bytes()) for path in (folder / "server").rglob("*") if path.is_file()
    ]
    return said, [*transport.seen, *((name, content, False) for name, content in disk)]


def test_the_search_finds_every_kind_of_secret_in_a_plain_study(tmp_path):
    said, places = study(tmp_path, masked=False)
    found = hits(wanted(said), places)
    for secret in ("members 0", "patients of RX//aspirin", "visits", "nll", "n as", "trained weight/"):
        assert any(secret in hit for hit in found), secret
    assert {hit.rpartition(" in ")[2].split("/")[0] for hit in found} >= {"reply enrolled site-b", "server"}


def test_the_server_of_a_masked_study_has_no_secret_of_the_site_in_any_message_or_file(tmp_path):
    said, places = study(tmp_path, masked=True)
    assert len(said) > 5
    assert len(places) > 30
    assert hits(wanted(said), places) == []


# --- which codes occur at a site (its weights tell) ------------------------------------------------------------------


def presence_scores(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """(C,) how much each code's embedding moved: HALO's first layer moves it where the code occurs."""
    return np.abs(after - before).sum(axis=1)


@pytest.fixture(scope="module")
def update():
    """A site's real weights before and after training, and which codes occur at it."""
    return site_update()


def test_the_codes_of_a_site_can_be_read_off_its_plain_update(update):
    before, after, occurs = update
    scores = presence_scores(before, after)
    assert roc_auc_score(occurs, scores) == 1.0  # the ten codes of one visit among them
    assert np.array_equal(scores > 0, occurs)


def test_what_the_server_of_a_masked_study_sees_tells_no_code(update):
    before, after, occurs = update
    aurocs = [roc_auc_score(occurs, masked_update(before, after)) for _ in range(30)]
    spread = np.std(aurocs) / np.sqrt(len(aurocs))
    assert abs(np.mean(aurocs) - 0.5) < 4 * spread + 0.01
