"""A program of Flower that returns ends, whatever threads it leaves."""

import os
import subprocess
import sys

GIVES_UP = """
import threading, time
def main():
    threading.Thread(target=time.sleep, args=(600,)).start()
    {last}
"""


def ended(tmp_path, *, last: str, name: str = "gives-up") -> subprocess.CompletedProcess:
    folder = tmp_path / "gives_up-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: gives-up\nVersion: 1\n")
    (folder / "entry_points.txt").write_text("[console_scripts]\ngives-up = gives_up:main\n")
    (tmp_path / "gives_up.py").write_text(GIVES_UP.format(last=last))
    command = [sys.executable, "-m", "fairsynth.operations.ending", name, "--x"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_a_program_that_returns_ends_with_its_threads(tmp_path):
    assert ended(tmp_path, last="return").returncode == 75


def test_the_program_has_its_name_and_options(tmp_path):
    done = ended(tmp_path, last="import sys; print(sys.argv)")
    assert (done.returncode, done.stdout.strip()) == (75, "['gives-up', '--x']")


def test_a_program_that_is_not_installed_is_named(tmp_path):
    done = ended(tmp_path, last="return", name="no-such-program")
    assert (done.returncode, done.stderr.strip()) == (1, "no-such-program is not installed")
