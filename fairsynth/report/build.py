"""The last step: a finished study -> one HTML file that needs nothing else.

In:  the server folder of a finished study, or a site's own folder.   Out: the file, written atomically.
Never: a script, a network address, text that is not escaped.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fairsynth import artefacts
from fairsynth.report import noised
from fairsynth.report.at_home import read_own
from fairsynth.report.noised_page import NoisedPage, noised_page
from fairsynth.report.page import Page, page
from fairsynth.report.study import read_finished


def build(root: Path, *, out: Path) -> Path:
    """Write the report of the finished study at `root`, a server folder, to the file `out`, and return `out`.

    Of a study with noise it has what the server knows: no result, for they stay at the sites. Raises ArtefactError when
    the study is not finished, or a file of it does not fit.
    """
    at_sites = noised.is_noised(root)
    content = noised_page(noised.read_noised(root)) if at_sites else page(read_finished(root))
    artefacts.write_text(out, render(content))
    return out


def build_own(root: Path, *, out: Path) -> Path:
    """Write the own page of the site at `root`, a site folder, to the file `out`, and return `out`.

    It is for that hospital alone: it rests on exact counts. Raises ArtefactError when the site has no audit, or a file
    of it does not fit.
    """
    artefacts.write_text(out, render(page(read_own(root))))
    return out


def render(content: Page | NoisedPage) -> str:
    """The HTML of a page; every text of it is escaped."""
    environment = Environment(
        loader=PackageLoader("fairsynth.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    loader = environment.loader
    style = loader.get_source(environment, "style.css")[0] if loader is not None else ""
    return environment.get_template(content.template).render(page=content, style=style)
