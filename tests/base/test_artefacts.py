"""Artefacts are whole or absent, and a reader refuses what it does not know."""

import json

import pytest

from fairsynth import artefacts, seeds
from fairsynth.errors import ArtefactError


def test_an_artefact_appears_only_when_it_is_whole(tmp_path):
    with pytest.raises(RuntimeError), artefacts.new(tmp_path, kind="thing", inputs={}) as folder:
        (folder / "part").write_text("x", encoding="utf-8")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rewrite_leaves_the_old_artefact(tmp_path):
    with artefacts.new(tmp_path, kind="thing", inputs={"in": "1"}) as folder:
        (folder / "part").write_text("old", encoding="utf-8")
    with pytest.raises(RuntimeError), artefacts.new(tmp_path, kind="thing", inputs={}) as folder:
        (folder / "part").write_text("new", encoding="utf-8")
        raise RuntimeError
    assert (tmp_path / "thing" / "part").read_text(encoding="utf-8") == "old"
    assert artefacts.read_manifest(tmp_path / "thing", kind="thing", verify=True)["inputs"] == {"in": "1"}


def test_a_rewrite_replaces_the_whole_folder(tmp_path):
    for name in ("first", "second"):
        with artefacts.new(tmp_path, kind="thing", inputs={}, facts={"name": name}) as folder:
            (folder / name).write_text(name, encoding="utf-8")
    assert sorted(path.name for path in (tmp_path / "thing").iterdir()) == ["manifest.json", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_an_altered_artefact_is_refused_when_verified(tmp_path):
    with artefacts.new(tmp_path, kind="thing", inputs={}) as folder:
        (folder / "part").write_text("x", encoding="utf-8")
    (tmp_path / "thing" / "part").write_text("y", encoding="utf-8")
    artefacts.read_manifest(tmp_path / "thing", kind="thing")
    with pytest.raises(ArtefactError, match="altered"):
        artefacts.read_manifest(tmp_path / "thing", kind="thing", verify=True)


@pytest.mark.parametrize(("key", "value"), [("schema", 99), ("kind", "other")])
def test_an_artefact_of_another_schema_or_kind_is_refused(tmp_path, key, value):
    with artefacts.new(tmp_path, kind="thing", inputs={}):
        pass
    path = tmp_path / "thing" / artefacts.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), key: value}), encoding="utf-8")
    with pytest.raises(ArtefactError, match="another kind or schema"):
        artefacts.read_manifest(tmp_path / "thing", kind="thing")


def test_a_missing_artefact_is_named(tmp_path):
    with pytest.raises(ArtefactError, match="no thing artefact"):
        artefacts.read_manifest(tmp_path, kind="thing")


def test_a_text_file_is_old_or_new_never_a_part(tmp_path):
    path = tmp_path / "state.json"
    artefacts.write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        artefacts.write_json(path, {"a": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_streams_differ_by_name_and_repeat_by_seed():
    names = [("sample", "a"), ("sample", "b"), ("train", "a"), ("train", "a", 1)]
    values = {seeds.stream(7, *name) for name in names}
    assert len(values) == len(names)
    assert values == {seeds.stream(7, *name) for name in names}
    assert values.isdisjoint({seeds.stream(8, *name) for name in names})


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_holds_is_not(tmp_path):
    left = tmp_path / ".events.left"
    left.mkdir()
    (left / "half.parquet").write_bytes(b"half")
    with (
        artefacts.new(tmp_path, kind="events", inputs={}) as first,
        artefacts.new(tmp_path, kind="events", inputs={}) as second,
    ):
        assert not left.exists()
        assert first.is_dir()
        assert second.is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["events"]


def test_an_artefact_can_be_written_inside_another(tmp_path):
    with (
        artefacts.new(tmp_path, kind="outer", inputs={}) as outer,
        artefacts.new(outer, kind="inner", inputs={}) as inner,
    ):
        (inner / "part").write_text("x", encoding="utf-8")
    assert artefacts.read_manifest(tmp_path / "outer" / "inner", kind="inner", verify=True)
    assert artefacts.read_manifest(tmp_path / "outer", kind="outer", verify=True)
    assert not list(tmp_path.rglob(artefacts.LOCK))
