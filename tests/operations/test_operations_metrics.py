"""What Prometheus reads, by its own parser; names by its conventions; the alert rules ask for what there is."""

from __future__ import annotations

import re
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from federation_toys import InProcess, toy_plan, toy_sites
from governed_toys import site_of
from prometheus_client import start_http_server
from prometheus_client.parser import text_string_to_metric_families

from fairsynth.cli import main
from fairsynth.errors import ConfigError
from fairsynth.federation.engine.processes import free_ports
from fairsynth.federation.messages import EnrolRequest
from fairsynth.federation.rounds import run_study
from fairsynth.operations.metrics import parse_listen, registry_of

ROOT = Path(__file__).resolve().parents[2]
UNITS = ("_seconds", "_bytes", "_nats", "_info", "_total")
# without a unit, because they are numbers of things, ratios or yes and no
NUMBERS = re.compile(
    r"fairsynth_(up|study_(running|finished|failed)|rounds_(committed|planned)|fairness_loss|sites_(expected|answered)|"
    r"site_waited_for|privacy_epsilon|site_(ledger_entries|ledger_sound|epsilon_spent|epsilon_limit|supernode_up|"
    r"restore_settled))"
)


def scraped(path: Path) -> dict[str, list]:
    """Samples by name, as a Prometheus server gets them."""
    (port,) = free_ports(1)
    server, thread = start_http_server(port, addr="127.0.0.1", registry=registry_of(path))
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
    finally:
        server.shutdown()
        server.server_close()
        thread.join(30)
    found: dict[str, list] = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("metrics")
    plan = toy_plan()
    run_study(InProcess(toy_sites(plan)), plan=plan, root=root / "server")
    return root


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    plan = toy_plan()
    made = site_of(tmp_path_factory.mktemp("site"), plan)
    made.approve()
    made.ask(EnrolRequest(plan=plan).pack())
    return made.root


def one(found, name):
    (sample,) = found[name]
    return sample.value


def test_a_study_is_scraped(study):
    found = scraped(study)
    assert one(found, "fairsynth_up") == 1
    assert (one(found, "fairsynth_study_finished"), one(found, "fairsynth_study_running")) == (1, 0)
    assert {sample.labels["arm"]: sample.value for sample in found["fairsynth_rounds_committed"]} == {
        "plain": 3,
        "fairsynth": 3,
    }
    assert {sample.labels["site"] for sample in found["fairsynth_site_received_bytes_total"]} == {"site-a", "site-b"}
    assert all(sample.value > 0 for sample in found["fairsynth_site_received_bytes_total"])
    assert all(0 <= sample.value < 3600 for sample in found["fairsynth_site_last_seen_seconds"])
    assert (one(found, "fairsynth_refused_replies_total"), one(found, "fairsynth_restarts_total")) == (0, 0)
    assert one(found, "fairsynth_fairness_loss") > 0
    assert one(found, "fairsynth_disk_free_bytes") > 0
    assert found["fairsynth_build_info"][0].labels["flwr"].startswith("1.41")


def test_a_site_is_scraped(site):
    found = scraped(site)
    assert one(found, "fairsynth_site_ledger_entries") == 2
    assert one(found, "fairsynth_site_ledger_sound") == 1
    assert (one(found, "fairsynth_site_epsilon_spent"), one(found, "fairsynth_site_epsilon_limit")) == (0, 10)
    assert one(found, "fairsynth_site_restore_settled") == 1


def test_names_follow_the_conventions(study, site):
    names = {*scraped(study), *scraped(site)}
    assert len(names) > 30
    for name in names:
        assert re.fullmatch(r"fairsynth_[a-z0-9_]+", name)
        assert name.endswith(UNITS) or NUMBERS.fullmatch(name), name


def test_nothing_of_this_process_is_on_the_page(study):
    assert not [name for name in scraped(study) if not name.startswith("fairsynth_")]


def test_a_folder_that_cannot_be_read_is_told_by_one_number(study, tmp_path):
    folder = tmp_path / "server"
    folder.mkdir()
    (folder / "plan.json").write_text('{"name": "Canarycillin"}')
    found = scraped(folder)
    assert set(found) == {"fairsynth_up", "fairsynth_build_info"}
    assert one(found, "fairsynth_up") == 0


def test_a_file_for_node_exporter_is_written_once(study, tmp_path):
    with pytest.raises(SystemExit) as stopped:
        main(["metrics", str(study), "--textfile", str(tmp_path / "fairsynth.prom")])
    assert stopped.value.code == 0
    names = {
        sample.name
        for family in text_string_to_metric_families((tmp_path / "fairsynth.prom").read_text())
        for sample in family.samples
    }
    assert "fairsynth_rounds_committed" in names


@pytest.mark.parametrize(
    "text, expected",
    [
        ("9108", ("127.0.0.1", 9108)),
        (":9108", ("127.0.0.1", 9108)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:9108", ("::1", 9108)),
    ],
)
def test_it_listens_on_loopback_unless_a_host_is_named(text, expected):
    assert parse_listen(text) == expected


@pytest.mark.parametrize("text", ["", "host", "host:", "host:0", "host:70000", "host:x"])
def test_an_address_that_is_none_is_refused(text):
    with pytest.raises(ConfigError):
        parse_listen(text)


def test_alert_rules_ask_for_metrics_that_there_are(study, site):
    rules = yaml.safe_load((ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text(encoding="utf-8"))
    there = {*scraped(study), *scraped(site), "fairsynth_last_commit_age_seconds", "fairsynth_training_left_seconds"}
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) > 8
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        asked = set(re.findall(r"fairsynth_[a-z0-9_]+", rule["expr"]))
        assert asked
        assert asked <= there, rule["alert"]


def test_two_scrapes_at_once_are_answered(study):
    found, errors = [], []

    def scrape():
        try:
            found.append(scraped(study))
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=scrape) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert len(found) == 3
