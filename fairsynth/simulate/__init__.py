"""Raw tables shaped like MIMIC-III and PIC, drawn from a known, written-down process (docs/simulator.md).

In:  a `SimulationConfig` (source, patients, seed, mix, detail, bias knobs).   Out: CSV tables; or, from
`fairsynth.simulate.truth.draw`, the same patients with their latent severity, conditions, true risk and labels.
Never: a row of a real database; relabelled patients; a process that depends on the patients' seed.

    sources/<name>/*.csv   what is known of a source     source.py      the same as arrays
    course.py              who comes, and how it goes     outcome.py     who dies
    calibrate.py           intercepts from marginals      bias.py        the four knobs
    content.py             codes, drugs, labs             tables.py, mimic3.py, pic.py, write.py   CSV
"""

from fairsynth.simulate.write import SimulationSummary, full_size, simulate

__all__ = ["SimulationSummary", "full_size", "simulate"]
