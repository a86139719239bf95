"""The last step: a finished study -> one HTML file that needs nothing else.

In:  the server folder of a finished study.   Out: the file, written atomically.
Never: a script, a network address, text that is not escaped.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from fairsynth import artefacts
from fairsynth.report.page import Page, page
from fairsynth.report.study import read_finished


def build(root: Path, *, out: Path) -> Path:
    """Write the report of the finished study at `root` to the file `out`, and return `out`.

    Raises ArtefactError when the study is not finished, or a file of it does not fit.
    """
    artefacts.write_text(out, render(page(read_finished(root))))
    return out


def render(content: Page) -> str:
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
    return environment.get_template("report.html.j2").render(page=content, style=style)
