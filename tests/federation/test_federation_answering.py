"""What a site settles before any of its work: how many threads its sums are made by."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from federation_toys import toy_plan

from fairsynth.config import TrainingConfig
from fairsynth.federation.answering import answered
from fairsynth.federation.messages import EnrolRequest, Envelope


def test_a_process_of_a_site_starts_without_what_few_messages_need():
    """In deployment each message is a new process: what it imports, it pays for."""
    few = ("scipy", "sklearn", "matplotlib", "pandas", "fairsynth.extraction.engine")
    found = f"import sys, client.app; print([name for name in {few} if name in sys.modules])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", found], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("threads", [1, 3])
def test_work_has_the_threads_of_the_plan_whatever_the_machine_or_its_environment(threads, tmp_path):
    plan = toy_plan(training=TrainingConfig(threads=threads))
    (tmp_path / "site.json").write_text(json.dumps({"site": "site-a", "config": ".", "data": "."}))
    before, seen = torch.get_num_threads(), []

    def work(root, request):
        seen.append(torch.get_num_threads())
        return Envelope(kind="enrolled", fields="{}")

    answered(tmp_path, EnrolRequest(plan=plan).pack(), work)
    assert seen == [threads]
    assert torch.get_num_threads() == before
