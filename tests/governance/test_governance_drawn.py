import numpy as np
import pytest

from fairsynth.errors import ArtefactError, PolicyRefusal
from fairsynth.governance.drawn import KEY, NAME, Drawn
from fairsynth.governance.noise import discrete_gaussian

COUNTS = np.array([[7_777_771, 3], [0, 12]])


@pytest.fixture
def drawn(tmp_path):
    return Drawn.begin(tmp_path)


def noise(values):
    return discrete_gaussian(values, sigma=1e6)  # so wide that no value comes out as it went in


def test_a_label_is_drawn_once_and_given_again_after_a_restart(tmp_path, drawn):
    first = drawn.noised("round 1", COUNTS, draw=noise)
    again = Drawn(tmp_path).noised("round 1", COUNTS, draw=noise)
    assert np.array_equal(first, again)
    assert first.shape == COUNTS.shape
    assert first.dtype == np.int64
    assert not np.array_equal(first, COUNTS)


def test_another_label_has_noise_of_its_own(drawn):
    assert not np.array_equal(drawn.noised("round 1", COUNTS, draw=noise), drawn.noised("round 2", COUNTS, draw=noise))


@pytest.mark.parametrize("other", [COUNTS + 1, COUNTS.ravel(), COUNTS.T])
def test_another_input_under_a_drawn_label_is_refused(drawn, other):
    drawn.noised("round 1", COUNTS, draw=noise)
    with pytest.raises(PolicyRefusal, match="FS-400 noise was drawn for another input"):
        drawn.noised("round 1", other, draw=noise)


def test_the_files_hold_no_value_without_noise_and_are_for_the_owner_only(tmp_path, drawn):
    drawn.noised("round 1", COUNTS, draw=noise)
    assert "7777771" not in (tmp_path / NAME).read_text().replace(",", " ").split()
    assert {(tmp_path / name).stat().st_mode & 0o777 for name in (NAME, KEY)} == {0o600}


def test_a_secret_is_the_same_for_the_same_work_and_of_32_bytes(tmp_path, drawn):
    first = drawn.secret("train 1", given=b"weights")
    assert first == Drawn(tmp_path).secret("train 1", given=b"weights")
    assert len(first) == 32
    assert first != drawn.secret("train 2", given=b"weights")


def test_a_secret_is_not_used_for_other_work(drawn):
    drawn.secret("train 1", given=b"weights")
    with pytest.raises(PolicyRefusal):
        drawn.secret("train 1", given=b"other weights")


def test_values_and_secrets_share_no_label(drawn):
    drawn.secret("round 1", given=b"weights")
    with pytest.raises(PolicyRefusal):
        drawn.noised("round 1", COUNTS, draw=noise)


def test_nothing_is_drawn_without_the_key(tmp_path, drawn):
    (tmp_path / KEY).unlink()
    with pytest.raises(ArtefactError, match="key of the journal"):
        drawn.noised("round 1", COUNTS, draw=noise)


def test_a_journal_keeps_its_key(tmp_path, drawn):
    key = (tmp_path / KEY).read_bytes()
    with pytest.raises(ArtefactError, match="exists already"):
        Drawn.begin(tmp_path)
    assert (tmp_path / KEY).read_bytes() == key


def test_a_draw_that_fails_leaves_the_label_free(drawn):
    def broken(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drawn.noised("round 1", COUNTS, draw=broken)
    assert drawn.noised("round 1", COUNTS, draw=noise).shape == COUNTS.shape
