"""Studies over the bare form: two sites, each with a SuperNode and a SuperExec, through the proxy."""

from __future__ import annotations

import json

import pytest
from federation_real import ROOT, Local, make_sites, real_plan

from fairsynth.config import AuditConfig
from fairsynth.errors import ConfigError
from fairsynth.federation.engine import Site
from fairsynth.federation.engine.study import follow, open_job, submit
from fairsynth.federation.journal import read
from fairsynth.federation.rounds import run_study

pytestmark = pytest.mark.flower

ARMS = ("plain", "fairsynth")


def models(server):
    return {arm: (server / f"generator-{arm}" / "weights.safetensors").read_bytes() for arm in ARMS}


@pytest.fixture(scope="module")
def online(server, desk):
    """Two sites that wait for work; their folders are still empty."""
    for site in real_plan().roster:
        server.register(desk, site, server.provide_site(site))
        server.start_site(site)
    return server


def run(desk, plan, folders, root):
    """Submit the study as a coordinator does; returns what it told."""
    path = root / "plan.json"
    path.write_text(plan.model_dump_json(by_alias=True))
    sites = [Site(site=site, folder=folder) for site, folder in folders.items()]
    heard = []
    job = open_job(ROOT, plan=path, workdir=root / "server", sites=sites, on_event=heard.append)
    follow(desk, job, run=submit(desk, job), offset=0)
    return heard


def test_a_studys_first_request_reaches_both_sites_through_the_proxy_and_their_answers_come_back(
    online, desk, tmp_path
):
    plan = real_plan()
    folders = {site: online.site_folder(site) for site in plan.roster}
    for site, folder in folders.items():
        values = {"site": site, "config": str(tmp_path / "nowhere"), "data": str(tmp_path)}
        (folder / "site.json").write_text(json.dumps(values))
    with pytest.raises(ConfigError, match=r"missing file: site site-a: .*site\.yaml"):
        run(desk, plan, folders, tmp_path)
    failed = read(tmp_path / "server" / "journal.jsonl")[-1]
    for site in plan.roster:
        assert f"{site}: FS-100" in json.dumps(failed)  # what left the site: its code, and nothing of its own message
    assert "nowhere" not in json.dumps(failed)


@pytest.mark.slow
def test_a_study_through_the_proxy_gives_the_models_that_one_process_gives(online, desk, tmp_path):
    plan = real_plan(audit=AuditConfig(predictors=("logistic_regression",), seeds=1))
    folders = make_sites(online.site_folder("any").parent, plan)
    run_study(Local(folders), plan=plan, root=tmp_path / "reference")
    heard = run(desk, plan, folders, tmp_path)
    assert heard[-1]["event"] == "finished"
    assert heard == read(tmp_path / "server" / "journal.jsonl")
    assert models(tmp_path / "server") == models(tmp_path / "reference")
