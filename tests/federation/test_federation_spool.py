"""Replies are let go as they come: the server's memory does not grow with the number of sites."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
from federation_toys import InProcess, toy_plan, toy_sites
from masked_toys import masked_plan, masked_sites

from fairsynth.config import AugmentationConfig
from fairsynth.errors import ArtefactError, ProtocolError
from fairsynth.federation import spool as spools
from fairsynth.federation.aggregate import average, average_of
from fairsynth.federation.messages import EnrolRequest
from fairsynth.federation.rounds import run_study
from fairsynth.federation.spool import Spool

RNG = np.random.default_rng(1)
ARRAYS = {
    "weight/a": RNG.normal(size=(3, 4)).astype(np.float32),
    "weight/b": np.asfortranarray(RNG.normal(size=(5, 2))),
    "scalar": np.array(7, dtype=np.int64),
    "empty": np.empty((0, 3), dtype=np.uint16),
}


@pytest.mark.parametrize("in_memory", [0, 100, 1 << 20])
def test_what_was_put_comes_back_as_it_was_in_memory_and_on_disk(in_memory, tmp_path, monkeypatch):
    monkeypatch.setattr(spools, "IN_MEMORY", in_memory)
    with Spool(tmp_path) as spool:
        for site in ("b", "a"):
            spool.put(site, {name: array + (site == "b") for name, array in ARRAYS.items()})
        for site in ("a", "b"):
            found = spool.arrays(site)
            assert list(found) == list(ARRAYS)
            for name, array in ARRAYS.items():
                assert found[name].dtype == array.dtype
                assert np.array_equal(found[name], array + (site == "b"))
        assert spool.names("weight/") == ["weight/a", "weight/b"]
        with pytest.raises(KeyError):
            spool.get("c", "scalar")
        assert not list(tmp_path.iterdir())  # no name on disk, so nothing to leave behind


def test_the_mean_out_of_a_spool_is_that_of_arrays_in_memory(tmp_path):
    sites = {f"site-{number}": RNG.normal(size=(40, 7)).astype(np.float32) for number in range(9)}
    patients = {site: 10 + 3 * number for number, site in enumerate(sites)}
    with Spool(tmp_path) as spool:
        for site in reversed(sites):
            spool.put(site, {"weight/a": sites[site], "other": sites[site]})
        found = average_of(spool, "weight/", patients=patients)
    expected = average({site: {"a": array} for site, array in sites.items()}, patients=patients)
    assert list(found) == ["a"]
    assert found["a"].tobytes() == expected["a"].tobytes()


def owner(array):
    """The array whose memory this one shows."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Counting(InProcess):
    """Counts how many earlier replies are still held whenever the next one comes."""

    def __init__(self, sites):
        super().__init__(sites)
        self.held = {}

    def ask(self, requests, *, timeout):
        kind = next(iter(requests.values())).kind
        earlier = []
        for site, envelope in super().ask(requests, timeout=timeout):
            gc.collect()
            self.held[kind] = max(self.held.get(kind, 0), sum(one() is not None for one in earlier))
            if envelope.arrays:
                earlier.append(weakref.ref(owner(max(envelope.arrays.values(), key=lambda array: array.nbytes))))
            yield site, envelope
            del envelope


def plain(root):
    plan = toy_plan(
        roster=("site-a", "site-b", "site-c"),
        augmentation=AugmentationConfig(synthetic_patients=10, candidates="taught"),
    )
    return plan, toy_sites(plan)


def masked(root):
    plan = masked_plan(augmentation=AugmentationConfig(synthetic_patients=10, candidates="taught"))
    return plan, masked_sites(root, plan, toy_sites(plan))


@pytest.mark.parametrize("make", [plain, masked])
def test_no_reply_is_held_when_the_next_one_comes(make, tmp_path):
    plan, sites = make(tmp_path)
    transport = Counting(sites)
    run_study(transport, plan=plan, root=tmp_path / "server")
    assert {"enrol", "agree", "train", "teach", "feedback", "audit"} <= set(transport.held)
    assert set(transport.held.values()) == {0}, transport.held


def test_a_second_reply_of_a_site_and_one_of_nobody_asked_are_not_read(tmp_path):
    plan = toy_plan()

    class Twice(InProcess):
        def ask(self, requests, *, timeout):
            for site, envelope in super().ask(requests, timeout=timeout):
                yield "site-z", envelope
                yield site, envelope
                yield site, EnrolRequest(plan=plan).pack()

    run_study(Twice(toy_sites(plan)), plan=plan, root=tmp_path / "twice")
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "once")
    weights = "generator-fairsynth/weights.safetensors"
    assert (tmp_path / "twice" / weights).read_bytes() == (tmp_path / "once" / weights).read_bytes()


def test_an_exchange_that_is_not_accepted_leaves_nothing(tmp_path):
    plan = toy_plan()
    sites = toy_sites(plan, b=lambda kind, envelope: None if kind == "agree" else envelope)
    with pytest.raises(ProtocolError):
        run_study(InProcess(sites), plan=plan, root=tmp_path)
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".exchange")]


def test_a_disk_without_room_for_a_round_is_told_before_the_sites_train(tmp_path, monkeypatch):
    plan = toy_plan()
    sites = toy_sites(plan)
    monkeypatch.setattr(spools, "IN_MEMORY", 0)
    monkeypatch.setattr(spools.shutil, "disk_usage", lambda root: SimpleNamespace(free=1000))
    with pytest.raises(ArtefactError, match=r"no room for a round's replies: 1,000 bytes are free"):
        run_study(InProcess(sites), plan=plan, root=tmp_path / "server")
    assert not [request for site in sites.values() for request in site.asked if request.kind == "train"]
    monkeypatch.undo()
    run_study(InProcess(sites), plan=plan, root=tmp_path / "server", resume=True)
    run_study(InProcess(toy_sites(plan)), plan=plan, root=tmp_path / "whole")
    weights = "generator-fairsynth/weights.safetensors"
    assert (tmp_path / "server" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()
