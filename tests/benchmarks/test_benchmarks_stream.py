"""The memory benchmark of `generate`, at a tiny size and in this process."""

from benchmarks import stream


def test_memory_is_told_for_every_number_of_patients(tmp_path, monkeypatch):
    monkeypatch.setattr(stream, "STUDY", stream.STUDY.replace("patients: 1500", "patients: 300"))
    peaks = {0: 900.0, 20: 500.0, 60: 600.0}

    def measured(folder, patients):
        stream.worker(folder, patients)
        return {"peak_mib": peaks[patients], "seconds": 1.0}

    monkeypatch.setattr(stream, "measured", measured)
    found = stream.figures(tmp_path, (20, 60))
    assert found["growth"] == 1.2
    assert list(found["patients"]) == [20, 60]
    assert 0 < found["patients"][20]["written_mib"] < found["patients"][60]["written_mib"]
