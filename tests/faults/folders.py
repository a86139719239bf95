"""Faults of disks and folders, without Flower: full, damaged, closed, removed; an export that is killed; a site that
leaves for good. Started as a program, as `killing.py` is: `python folders.py --case F5`; one JSON line a fault.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from killing import KILLED, Driver, check, in_child
from writes import MODES, Writes

from fairsynth.federation.journal import read
from fairsynth.federation.rounds import run_study
from studies import SENT, Kind, Spawn, Witnessed, copied, kinds, noted

CLEAR = ("ArtefactError", "ConfigError", "ProtocolError", "EngineError")  # what, where, expected, do


def tell(case: str, fault: str, *, closed: str = "", problems=(), seconds: float | None = None) -> None:
    line = {"case": case, "fault": fault, "seconds": seconds, "closed": closed[:200], "problems": list(problems)}
    print(json.dumps(line), flush=True)


class Here:
    """One kind of study, and copies of it that are spoilt one after the other."""

    def __init__(self, kind: Kind, work: Path, rng: random.Random) -> None:
        self.kind, self.work, self.rng = kind, work, rng
        self.driver = Driver(kind, work)
        self.driver.measure()

    def copies(self, number: int, of: Path | None = None) -> Iterator[tuple[int, Path]]:
        for place in range(number):
            root = self.work / "copy" / "study"
            copied(of or self.driver.template, root)
            try:
                yield place, root
            finally:
                root.parent.chmod(0o700)
                shutil.rmtree(root.parent)

    def resumed(self, root: Path) -> list[str]:
        """Go on without faults: what of the promises does not hold."""
        said = in_child(lambda: self.kind.run(root, resume=True))
        if said.startswith("ConfigError: FS-100 no study to resume"):
            said = in_child(lambda: self.kind.run(root, resume=False))
        said = said or in_child(lambda: check(root, self.driver.golden))
        return [said] if said else []

    def clear(self, said: str) -> list[str]:
        return [] if said.startswith(CLEAR) else [f"not a clear error: {said[:200]}"]


def full(here: Here, number: int) -> None:
    """F5: no room from the k-th write on; files of a limited size."""
    count = len([place for place in here.driver.places["all"] if "/server" in place])
    for _, root in here.copies(number):
        at = here.rng.randrange(1, count + 1)

        def no_room(root: Path = root, at: int = at) -> None:
            Full(root / "server", at=at).install()
            here.kind.run(root, resume=False)

        said = in_child(no_room)  # nothing, where only leftovers could not be removed
        tell("F5", "ENOSPC", closed=said, problems=(here.clear(said) if said else []) + here.resumed(root))
    for place, root in here.copies(max(number // 4, 2)):
        limit = 300 * 2**place

        def small(root: Path = root, limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            most = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, most))
            roomy = Spawn(begin=lambda name: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
            here.kind.run(root, resume=False, spawn=roomy)

        said = in_child(small)
        tell("F5", "RLIMIT_FSIZE", closed=said, problems=(here.clear(said) if said else []) + here.resumed(root))


class Full(Writes):
    """A disk that is full from a write on, and stays so: what is removed makes no room."""

    def _reached(self, place: str) -> bool:
        super()._reached(place)
        return self.number[0] >= self.at and not place.startswith(("unlink", "remove", "rmdir"))

    def __init__(self, root: Path, *, at: int) -> None:
        super().__init__(root, at=at, act=self.fail)

    @staticmethod
    def fail() -> None:
        raise OSError(28, "No space left on device")


def damaged(here: Here, number: int) -> None:
    """F6: a study killed late in training, one file of its server damaged, and gone on with."""
    base = here.work / "base"
    copied(here.driver.template, base)
    places = here.driver.places["all"]
    at = max(place for place, text in enumerate(places, start=1) if "fsync" in text and "journal.jsonl" in text) - 60

    def work() -> None:
        Writes(base, at=at, mode="before").install()
        here.kind.run(base, resume=False)

    assert in_child(work) == KILLED
    files = sorted(path for path in (base / "server").rglob("*") if path.is_file() and path.name != ".server.lock")
    for place, root in here.copies(number, base):
        path = root / files[place % len(files)].relative_to(base)
        what = damage(path, here.rng)
        said = in_child(lambda root=root: here.kind.run(root, resume=True))
        name = path.relative_to(root / "server").as_posix()
        if said:
            tell("F6", f"{what}: {name}", closed=said, problems=here.clear(said))
            continue
        wrong = in_child(lambda root=root: check(root, here.driver.golden))
        tell("F6", f"{what}: {name}", problems=[wrong] if wrong else [])


def damage(path: Path, rng: random.Random) -> str:
    content = bytearray(path.read_bytes())
    what = rng.choice(["flipped", "flipped", "cut", "empty", "missing", "zeros", "longer"])
    place = rng.randrange(len(content)) if content else 0
    if what == "missing":
        path.unlink()
        return what
    if what == "flipped" and content:
        content[place] ^= 1 << rng.randrange(8)
    elif what == "cut":
        content = content[:place]
    elif what == "empty":
        content = bytearray()
    elif what == "zeros":
        content[place : place + 512] = bytes(len(content[place : place + 512]))
    elif what == "longer":
        content += bytes(rng.randrange(1, 64))
    path.write_bytes(content)
    return what


def closed(here: Here, number: int) -> None:
    """F24: a server folder that is read-only, loses its permission in the study, or is removed; as any user."""
    exchanges = len({json.dumps(one) for one in here.driver.golden["labels"]}) // 3
    for place, root in here.copies(number):
        how = ("read-only", "permission lost", "removed")[place % 3]
        at = here.rng.randrange(2, exchanges)
        saved = root.parent / "saved"

        def work(root: Path = root, how: str = how, at: int = at, saved: Path = saved) -> None:
            if os.geteuid() == 0:
                without_capabilities()
            if how == "read-only":
                (root / "server").chmod(0o555)
            transport = Witnessed(
                root, Spoiling(here.kind.sites(root, here.kind.plan), root / "server", how, at, saved), spawn=None
            )
            run_study(transport, plan=here.kind.plan, root=root / "server")

        here.work.chmod(0o755)
        said = in_child(work)
        problems = here.clear(said)
        if how == "removed":
            shutil.rmtree(root / "server", ignore_errors=True)
            shutil.copytree(saved, root / "server")  # the backup that the error asks for
        for path in (root / "server", *(root / "server").rglob("*")):
            path.chmod(0o700)
        tell("F24", how, closed=said, problems=problems + here.resumed(root))


def without_capabilities() -> None:
    """From here on this process is no more than the owner of its files, also as root: modes hold for it."""
    version, nothing = 0x20080522, bytes(24)
    if ctypes.CDLL(None, use_errno=True).capset(struct.pack("=Ii", version, 0), nothing):
        raise OSError(ctypes.get_errno(), "capset")


class Spoiling:
    """Sites that, at one exchange, spoil the server's folder before they answer."""

    def __init__(self, sites, server: Path, how: str, at: int, saved: Path) -> None:
        self.server, self.how, self.left, self.saved = server, how, at * len(sites), saved
        self.sites = {name: self._spoiling(site) for name, site in sites.items()}

    def _spoiling(self, site: Callable) -> Callable:
        def answer(request):
            self.left -= 1
            if self.left == 0 and self.how == "permission lost":
                for path in (self.server, self.server / "journal.jsonl", *self.server.glob("[a-z]*s")):
                    if path.exists():
                        path.chmod(0o500 if path.is_dir() else 0o400)
            elif self.left == 0 and self.how == "removed":
                shutil.copytree(self.server, self.saved)
                shutil.rmtree(self.server)
            return site(request)

        return answer


def left(here: Here, number: int) -> None:
    """F19: one site of three leaves for good: the study fails closed; the others begin another, with new keys."""
    for place, root in here.copies(number):
        gone = here.kind.plan.roster[place % 3]
        at = here.rng.randrange(1, 6)

        def work(root: Path = root, gone: str = gone, at: int = at) -> None:
            sites = dict(here.kind.sites(root, here.kind.plan))
            asked = [0]

            def leaving(request, site=sites[gone]):
                asked[0] += 1
                return site(request) if asked[0] <= at else None  # noqa: B023  its own default

            from federation_toys import InProcess

            transport = Witnessed(root, InProcess({**sites, gone: leaving}), spawn=None)
            run_study(transport, plan=here.kind.plan, root=root / "server")

        said = in_child(work)
        problems = [] if said.startswith("ProtocolError") and gone in said else [f"not closed: {said}"]
        before = {(one["site"], one["label"]) for one in noted(root / SENT)}
        others = [site for site in here.kind.plan.roster if site != gone]
        later = in_child(lambda root=root, others=others: anew(here.kind, root, others))
        problems += [f"the others: {later}"] if later else []
        after = [one for one in noted(root / SENT) if one["site"] in others][sum(s in others for s, _ in before) :]
        problems += (
            ["a label of both cohorts"] if {one["label"] for one in after} & {label for _, label in before} else []
        )
        tell("F19", f"{gone} leaves after {at} requests", closed=said, problems=problems)


def anew(kind: Kind, root: Path, sites: list[str]) -> None:
    from federation_toys import InProcess, toy_sites
    from masked_toys import MaskedToySite, signed_roster

    from fairsynth.config import PrivacyConfig
    from fairsynth.federation.masking.roster import write_roster
    from fairsynth.governance.identity import load_identity

    privacy = PrivacyConfig(agreement="two are left", minimum_contributing=1)
    plan = kind.plan.model_copy(update={"roster": tuple(sites), "quorum": len(sites), "privacy": privacy})
    roster = signed_roster(plan, {site: load_identity(root / site) for site in sites})
    for folder in (*sites, "others"):
        (root / folder).mkdir(exist_ok=True)
        write_roster(root / folder, roster)
    toys = {site: MaskedToySite(root / site, toy) for site, toy in toy_sites(plan).items()}
    run_study(Witnessed(root, InProcess(toys), spawn=None), plan=plan, root=root / "others")
    assert read(root / "others" / "journal.jsonl")[-1]["event"] == "finished"


def exported(work: Path, number: int, rng: random.Random) -> None:
    """F23: the gate and the export are killed at their writes: no half export, every begun run of the gate counted."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "synthesis"))
    made = work / "made"

    def make() -> None:
        from test_release_export import STUDY, drawn, train

        made.mkdir()
        (made / "study.yaml").write_text(STUDY, encoding="utf-8")
        drawn(train(made / "study.yaml", out=made / "site")[0], made / "new", seed=1)

    assert not (said := in_child(make)), said

    def gate(root: Path) -> None:
        from fairsynth.synthesis.release.check import check_release

        check_release(root / "site", synthetic=root / "new")

    def leave(root: Path) -> None:
        from fairsynth.synthesis.release.export import export

        export(root / "site", synthetic=root / "new", out=root / "out")

    checked = work / "checked"
    shutil.copytree(made, checked)
    assert not (said := in_child(lambda: gate(checked))), said
    for name, base, act in (("gate", made, gate), ("export", checked, leave)):
        root = work / "count" / "here"
        shutil.copytree(base, root)

        def counting(root: Path = root, act: Callable = act) -> None:
            counted = Writes(root).install()
            act(root)
            (work / "points").write_text(str(counted.number[0]))

        assert not (said := in_child(counting)), said
        points = int((work / "points").read_text())
        shutil.rmtree(root.parent)
        for at in sorted(rng.sample(range(1, points + 1), min(number, points))):
            shutil.copytree(base, root)
            mode = rng.choice(MODES)

            def killed(root: Path = root, act: Callable = act, at: int = at, mode: str = mode) -> None:
                Writes(root, at=at, mode=mode).install()
                act(root)

            said = in_child(killed)
            problems = [] if said == KILLED else [f"not killed: {said}"]
            problems += [found for found in [in_child(lambda root=root, act=act: whole(root, act))] if found]
            tell("F23", f"{name} killed at write {at} of {points}, {mode}", problems=problems)
            shutil.rmtree(root.parent)


def whole(root: Path, act: Callable[[Path], None]) -> None:
    """Nothing half is visible; then the same again ends well, or is there already."""
    from fairsynth import artefacts
    from fairsynth.synthesis.release import runs

    if (root / "out" / "export").exists():
        artefacts.read_manifest(root / "out" / "export", kind="export", verify=True)
    else:
        act(root)
    numbers = [line["number"] for line in runs.read(root / "site") if line["event"] == "run"]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    assert len(numbers) <= 2, "one kill counts one run"


STUDIES: dict[str, tuple[str, Callable[[Here, int], None], int]] = {
    "F5": ("masked", full, 40),
    "F6": ("masked", damaged, 200),
    "F19": ("masked", left, 6),
    "F24": ("masked", closed, 12),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", required=True, choices=[*STUDIES, "F23"])
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        started = time.monotonic()
        if options.case == "F23":
            exported(Path(folder), options.number or 25, rng)
        else:
            study, work, number = STUDIES[options.case]
            work(Here(kinds()[study], Path(folder), rng), options.number or number)
        print(json.dumps({"case": options.case, "took": round(time.monotonic() - started, 1)}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
