"""A server's or a site's status as Prometheus reads it.

In:  a folder.   Out: a registry whose one collector reads the folder when it is scraped; a page on loopback, or a file.
Never: a count of patients; a label that a site chose, but its name in the roster; an error's text on the page.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from fairsynth.errors import ConfigError, FairSynthError
from fairsynth.operations.checks_software import versions_here
from fairsynth.operations.folders import find_folder
from fairsynth.operations.server_status import ServerStatus, seconds_since, server_status
from fairsynth.operations.site_status import SiteStatus, site_status

PORT = 9108
LOOPBACK = "127.0.0.1"

Family = GaugeMetricFamily | CounterMetricFamily | InfoMetricFamily


class Folder(Collector):
    """Reads the folder at `path` at each scrape."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def collect(self) -> Iterator[Family]:
        """All families; when the folder cannot be read, that alone."""
        yield _build()
        try:
            folder = find_folder(self._path)
            families = list(_server(server_status(folder.root)) if folder.kind == "server" else _site_of(folder.root))
        except (FairSynthError, OSError, KeyError, ValueError):  # ValueError: a file of another version
            yield _gauge("fairsynth_up", "Whether the folder could be read.", 0)
            return
        yield _gauge("fairsynth_up", "Whether the folder could be read.", 1)
        yield from families


def registry_of(path: Path) -> CollectorRegistry:
    """A registry of the folder alone: nothing of this process. Raises ConfigError for a coordinator's folder."""
    if find_folder(path).kind == "coordinator":
        raise ConfigError.of(
            "no metrics of a coordinator's folder", where=str(path), do="give a run, or a site's folder"
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Folder(path))
    return registry


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT`, `:PORT` or `PORT`; loopback where no host is named. Raises ConfigError."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise ConfigError.of("bad option", where=f"--listen {text}", expected="HOST:PORT, or a port on loopback")
    return host.strip("[]") or LOOPBACK, int(port)


def _build() -> InfoMetricFamily:
    return InfoMetricFamily("fairsynth_build", "Versions of what is installed.", value=versions_here())


def _server(status: ServerStatus) -> Iterator[Family]:
    yield _gauge("fairsynth_study_running", "Whether a server works on the study now.", status.state == "running")
    yield _gauge("fairsynth_study_finished", "Whether the study has finished.", status.state == "finished")
    yield _gauge("fairsynth_study_failed", "Whether it stopped with an error.", status.state == "failed")
    yield InfoMetricFamily("fairsynth_study", "Which.", value={"name": status.study, "plan_sha256": status.plan_sha256})
    yield _labelled("fairsynth_rounds_committed", "Rounds that were committed.", "arm", status.rounds)
    yield _labelled("fairsynth_rounds_planned", "Rounds of the plan, the last count too.", "arm", status.planned)
    yield from _known("fairsynth_fairness_loss", "L_F of the last round that has one.", status.loss)
    yield from _known("fairsynth_validation_nll_nats", "NLL of validation patients, a visit.", status.nll_validation)
    yield _gauge("fairsynth_sites_expected", "Sites that the last request went to.", status.expected)
    yield _gauge("fairsynth_sites_answered", "Sites that answered it.", status.answered)
    waiting = {one.site: float(one.waited_for) for one in status.sites}
    yield _labelled("fairsynth_site_waited_for", "Whether the server waits for the site's answer.", "site", waiting)
    seen = {one.site: seconds_since(one.last_seen) for one in status.sites if one.last_seen}
    yield _labelled("fairsynth_site_last_seen_seconds", "Since the site's last answer.", "site", seen)
    took = {one.site: one.seconds for one in status.sites if one.seconds is not None}
    yield _labelled("fairsynth_site_answer_seconds", "That the site's last answer took.", "site", took)
    yield _counted(
        "fairsynth_site_received_bytes",
        "Received from the site.",
        {one.site: one.received_bytes for one in status.sites},
    )
    yield _counted("fairsynth_site_sent_bytes", "Sent to the site.", {one.site: one.sent_bytes for one in status.sites})
    yield _counted(
        "fairsynth_site_failures", "Answers that told a failure.", {one.site: one.failures for one in status.sites}
    )
    yield CounterMetricFamily(
        "fairsynth_refused_replies", "Answers without a part in their phase.", value=status.refused
    )
    yield CounterMetricFamily("fairsynth_restarts", "Times that the study was resumed.", value=status.restarts)
    yield from _known("fairsynth_last_round_seconds", "That the last round took.", status.last_round_seconds)
    yield from _known("fairsynth_training_left_seconds", "Of training, by the last rounds.", status.seconds_left)
    if status.last_commit:
        since = seconds_since(status.last_commit)
        yield _gauge("fairsynth_last_commit_age_seconds", "Since the last round was committed.", since)
    yield from _known("fairsynth_privacy_epsilon", "What the study charges one patient, in all.", status.epsilon)
    yield _gauge("fairsynth_folder_bytes", "Of the server's folder.", status.disk_used)
    yield _gauge("fairsynth_disk_free_bytes", "On the folder's disk.", status.disk_free)


def _site_of(root: Path) -> Iterator[Family]:
    return _site(site_status(root))


def _site(status: SiteStatus) -> Iterator[Family]:
    yield InfoMetricFamily("fairsynth_site", "Which.", value={"name": status.site})
    yield _gauge("fairsynth_site_ledger_entries", "Lines of the ledger.", status.ledger_entries)
    yield _gauge("fairsynth_site_ledger_sound", "Whether every line is as it was written.", status.ledger_fault is None)
    yield _gauge("fairsynth_site_released_bytes", "That left, by the ledger.", status.sent_bytes)
    if status.last_answer:
        since = seconds_since(status.last_answer)
        yield _gauge("fairsynth_site_last_answer_seconds", "Since something left last.", since)
    yield from _known("fairsynth_site_epsilon_spent", "Over all studies.", status.epsilon_spent)
    yield from _known("fairsynth_site_epsilon_limit", "That the policy allows.", status.epsilon_limit)
    yield _gauge("fairsynth_site_supernode_up", "Whether the SuperNode answers on loopback.", status.supernode)
    yield _gauge("fairsynth_site_restore_settled", "Whether no restore waits to be settled.", status.settled)
    yield _gauge("fairsynth_disk_free_bytes", "On the folder's disk.", status.disk_free)


def _gauge(name: str, said: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, said, value=float(value))


def _known(name: str, said: str, value: float | None) -> Iterator[GaugeMetricFamily]:
    if value is not None:
        yield _gauge(name, said, value)


def _labelled(name: str, said: str, label: str, values: dict[str, float] | dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, said, labels=[label])
    for one, value in sorted(values.items()):
        family.add_metric([one], float(value))
    return family


def _counted(name: str, said: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, said, labels=["site"])
    for one, value in sorted(values.items()):
        family.add_metric([one], float(value))
    return family
