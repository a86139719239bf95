"""What a site and a server write down, whatever goes wrong: never an identifier, a code or a value of a patient."""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from canary_words import CODE, DRUG, PLANTED, heard, heard_in, logs, plant
from federation_real import WORK, Local, approve, make_sites, real_plan
from pydantic import TypeAdapter

from fairsynth.errors import ConfigError
from fairsynth.federation import boundary
from fairsynth.federation.messages import Failed
from fairsynth.federation.rounds import run_study
from fairsynth.federation.site_folder import LOG
from fairsynth.report.build import build

PHASES = ("enrol", "agree", "train", "audit")


class Recorded(Local):
    """Keeps what site-a was asked."""

    def __init__(self, folders):
        super().__init__(folders)
        self.asked = {}

    def ask(self, requests, *, timeout):
        self.asked |= {request.kind: request for name, request in requests.items() if name == "site-a"}
        return super().ask(requests, timeout=timeout)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A finished study of two sites whose tables are full of canaries."""
    root = tmp_path_factory.mktemp("hygiene")
    plan = real_plan()
    folders = make_sites(root, plan)
    for folder in folders.values():
        plant(folder / "raw")
    sites = Recorded(folders)
    run_study(sites, plan=plan, root=root / "server")
    build(root / "server", out=root / "report.html")
    return root, sites


def again(study, phase, work=None):
    """Ask site-a what it was asked in the study, once more."""
    root, sites = study
    request, folder = sites.asked[phase], root / "site-a"
    work = work or WORK[phase]
    reply = boundary.answer(lambda: folder, lambda: request, partial(sites.work, work), phase=phase)
    sites.replies.append(reply)
    return reply


def places(study):
    """Everything that was written down or sent, but for the site's own tables, events and patients."""
    root, sites = study
    sent = [f"{word} in a reply" for reply in sites.replies for word in heard(reply.fields)]
    server = [path for path in (root / "server").rglob("*") if path.is_file()]
    site = [path for name in sites.folders for path in (root / name).rglob("*.json") if path.parent.name == "approvals"]
    return sent + heard_in([*logs(root), *server, *site])


@pytest.fixture(autouse=True)
def silence(study, capfd, caplog):
    """After each test: nothing in any log, message, file of the server, or on the terminal; warnings are errors."""
    caplog.set_level(logging.DEBUG)
    yield
    assert places(study) == []
    out, err = capfd.readouterr()
    assert heard(out + err + caplog.text) == []


def test_the_sites_events_have_what_no_log_has(study):
    root, _ = study
    events = pl.read_parquet(root / "site-a" / "events" / "data")
    told = " ".join([*events["code"].unique().to_list(), *events["subject_id"].unique().cast(pl.String)])
    assert {DRUG, CODE} <= set(heard(told)) & set(PLANTED)
    assert any(word.startswith("770077") for word in heard(told))


# --- faults whose own text has a patient's value ---------------------------------------------------------------------


def of_polars(value):
    pl.Series([value]).cast(pl.Int64)


def of_pydantic(value):
    TypeAdapter(int).validate_python(value)


def of_python(value):
    int(value)


def of_a_mapping(value):
    {}[value]


def of_json(value):
    json.loads(value)


def of_bytes(value):
    f"{value}\xff".encode("latin-1").decode("utf-8")


def of_a_file(value):
    Path("/nowhere", value).read_text()


def of_several(value):
    raise ExceptionGroup(value, [ValueError(value)])


def of_a_cause(value):
    try:
        int(value)
    except ValueError as error:
        raise ConfigError.of("bad number", where="somewhere") from error


def of_a_note(value):
    error = RuntimeError("noted")
    error.add_note(value)
    raise error


def of_a_warning(value):
    warnings.warn(value, stacklevel=1)


FAULTS = (
    of_polars,
    of_pydantic,
    of_python,
    of_a_mapping,
    of_json,
    of_bytes,
    of_a_file,
    of_several,
    of_a_cause,
    of_a_note,
    of_a_warning,
)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_library_that_repeats_a_value_in_its_error_does_not_get_it_into_a_log(study, fault):
    with pytest.raises(Exception) as caught:
        fault(DRUG)
    error = caught.value
    said = [str(error), repr(error), repr(error.__cause__), *getattr(error, "__notes__", []), *map(repr, vars(error))]
    said += [repr(getattr(error, name, "")) for name in ("doc", "object", "filename")]
    assert heard(" ".join(said)) == [DRUG]
    for phase in PHASES:
        assert Failed.unpack(again(study, phase, lambda *_: fault(DRUG))).code in ("FS-900", "FS-100")
    line = (study[0] / "site-a" / LOG).read_text().splitlines()[-1]
    assert json.loads(line)["phase"] == PHASES[-1]


def test_a_panic_of_polars_leaves_as_a_code_too(study):
    """A damaged shard of events makes polars panic, which is no `Exception`."""

    def panic(*_):
        raise pl.exceptions.PanicException(DRUG)

    assert Failed.unpack(again(study, "audit", panic)).code == "FS-900"


# --- a site whose files are damaged ----------------------------------------------------------------------------------


def files_of(folder: Path, pattern: str) -> list[Path]:
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    assert found, pattern
    return found


def broken(content: bytes) -> bytes:
    return DRUG.encode() + content[len(content) // 2 :]


def with_cell(content: bytes, column: str) -> bytes:
    """A table with a word in a column of its first row, where the word does not belong."""
    table = pl.read_csv(content, infer_schema=False)
    first = pl.int_range(pl.len()) == 0
    return (
        table.with_columns(pl.when(first).then(pl.lit(DRUG)).otherwise(pl.col(column)).alias(column))
        .write_csv()
        .encode()
    )


@contextlib.contextmanager
def changed(paths, change):
    """The files as `change` makes them; afterwards as they were."""
    before = {path: path.read_bytes() for path in paths}
    try:
        for path, content in before.items():
            path.write_bytes(change(content))
        yield
    finally:
        for path, content in before.items():
            path.write_bytes(content)


DAMAGE = {
    "raw/PATIENTS.csv": "enrol",
    "raw/ADMISSIONS.csv": "enrol",
    "raw/LABEVENTS.csv": "enrol",
    "raw/D_LABITEMS.csv": "enrol",
    "configs/mimic3/groups.yaml": "enrol",
    "events/manifest.json": "agree",
    "cohort/*": "train",
    "cohort/*.json": "train",
    "cohort/*.parquet": "audit",
    "site.json": "audit",
}


@pytest.mark.parametrize("pattern", DAMAGE)
def test_damaged_files_of_a_site_are_told_without_their_content(study, pattern):
    folder = study[0] / "site-a"
    with changed(files_of(folder, pattern), broken):
        approve([folder], real_plan())  # else it is refused for its size alone, before it is read
        assert again(study, DAMAGE[pattern]).kind == Failed.kind
    approve([folder], real_plan())


CELLS = [
    ("PATIENTS", "SUBJECT_ID"),
    ("PATIENTS", "DOB"),
    ("ADMISSIONS", "HADM_ID"),
    ("ADMISSIONS", "ADMITTIME"),
    ("ADMISSIONS", "ETHNICITY"),
    ("LABEVENTS", "CHARTTIME"),
    ("LABEVENTS", "VALUENUM"),
]


@pytest.mark.parametrize("table, column", CELLS)
def test_a_cell_that_does_not_fit_its_column_is_told_without_the_cell(study, table, column):
    folder = study[0] / "site-a"
    with changed([folder / "raw" / f"{table}.csv"], partial(with_cell, column=column)):
        approve([folder], real_plan())
        reply = again(study, "enrol")
    approve([folder], real_plan())
    assert Failed.unpack(reply).code.startswith("FS-2")
    line = json.loads((folder / LOG).read_text().splitlines()[-1])
    assert column in json.dumps(line["problems"]) or line["code"] == "FS-250"  # so the cell was read


def test_the_search_finds_a_value_in_each_place_where_a_careless_program_would_write_it(tmp_path):
    """Control. The files go again, or the whole session's search would find them too."""
    for name in ("site.log", "ledger.jsonl", "journal.jsonl", "report.html", "site-a/superlink.log", "worker-1.err"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"row: {DRUG}\n")
        assert heard_in(logs(tmp_path)) == [f"{DRUG} in {path}"]
        path.unlink()
