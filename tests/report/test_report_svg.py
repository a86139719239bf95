"""Figures: text stays text, series stay apart, the page decides the ink."""

from __future__ import annotations

from matplotlib.figure import Figure

from fairsynth.report import svg


def drawn(name: str = "one") -> str:
    def drawing(figure: Figure) -> None:
        panel = figure.subplots()
        panel.plot([0, 1], [0, 1], color=svg.colour(0), label="a < b & $c$")
        panel.legend()

    return svg.draw(drawing, name=name, alt='an "alt" <text>', size=(3, 2))


def test_labels_are_text_and_escaped() -> None:
    figure = drawn()
    assert "a &lt; b &amp; $c$" in figure
    assert "an &quot;alt&quot; &lt;text&gt;" in figure
    assert figure.startswith("<svg")
    assert figure.endswith("</svg>")


def test_ink_follows_the_page_and_the_series_keep_their_colour() -> None:
    figure = drawn()
    assert "var(--ink)" in figure
    assert svg.INK not in figure
    assert svg.PALETTE[0].lower() in figure.lower()


def test_ids_belong_to_their_figure() -> None:
    first, second = drawn("one"), drawn("two")
    assert first.replace("one-", "two-") == second


def test_sixteen_series_differ_without_their_colour_or_within_it() -> None:
    looks = [(svg.colour(index), svg.marker(index), str(svg.dash(index))) for index in range(16)]
    assert len(set(looks)) == 16
    assert len({(marker, dash) for _, marker, dash in looks[:8]}) == 8


def test_no_state_of_matplotlib_is_changed() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    drawn()
    assert dict(mpl.rcParams) == before
