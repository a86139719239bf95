"""`fairsynth plan`: the plan of a study among hospitals, which each of them reads and approves."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fairsynth import artefacts
from fairsynth.cli.console import output
from fairsynth.config import read_study
from fairsynth.errors import ConfigError
from fairsynth.federation.plans import plan_sha256


def run(
    study: Annotated[Path, typer.Argument(help="The study file (YAML); of sites elsewhere the name is enough.")],
    out: Annotated[Path, typer.Option(help="Where to write the plan.")] = Path("plan.json"),
) -> None:
    """Write what all sites of a study agree on: no path, nothing of one site. Its hash names the study.

    Each site approves it (`fairsynth approve`), and where the study is masked all sign a roster for it
    (`fairsynth roster`); then `fairsynth study plan.json --server FOLDER` starts it.

    Example: `fairsynth plan study.yaml --out plan.json`
    """
    from fairsynth.experiments.study import check_names

    config = read_study(study)
    check_names(config)
    plan = config.plan()
    if out.exists():
        raise ConfigError.of("a file is here", where=str(out), expected="a new file", do="another --out")
    artefacts.write_text(out, plan.model_dump_json(by_alias=True, indent=2) + "\n")
    output.print(f"plan: [bold]{out}[/bold]\nhash: {plan_sha256(plan)}", highlight=False, soft_wrap=True)
