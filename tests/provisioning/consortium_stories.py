"""A coordinator and its sites, each in a folder of its own; files travel by copying."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from fairsynth.provisioning import coordinator, grants, request

CONSORTIUM = """schema: fairsynth.consortium/1
name: lungs
server: {host: fairsynth.example.org, port: 8443, also: [10.0.0.5]}
sites: [{site: boston}, {site: lyon}]
"""


@dataclass(frozen=True)
class Story:
    """Folders: `hub` is the coordinator's, `mail` holds what travels, every other is a site's."""

    root: Path

    @property
    def hub(self) -> Path:
        return self.root / "hub"

    @property
    def mail(self) -> Path:
        return self.root / "mail"

    def site(self, name: str) -> Path:
        return self.root / name

    def sent(self, path: Path, name: str) -> Path:
        """`path`, as it arrives at the other side."""
        self.mail.mkdir(exist_ok=True)
        return Path(shutil.copy(path, self.mail / name))

    def kit(self, name: str) -> Path:
        return self.sent(self.hub / "kits" / f"{name}.kit.json", f"{name}.kit.json")

    def asked(self, name: str, *, renew: bool = False) -> Path:
        """The request of a site, on its way."""
        request.make_request(self.kit(name), self.site(name), renew=renew)
        return self.sent(self.site(name) / "request.json", f"{name}.request.json")

    def granted(self, name: str, *, renew: bool = False) -> Path:
        """The grant of a site, on its way."""
        grants.accept(self.hub, self.asked(name, renew=renew))
        return self.sent(self.hub / "grants" / f"{name}.grant.json", f"{name}.grant.json")

    def joined(self, name: str, *, renew: bool = False) -> Path:
        """A site with its grant installed."""
        request.install(self.granted(name, renew=renew), self.site(name))
        return self.site(name)


def begun(root: Path, *, text: str = CONSORTIUM) -> Story:
    """A consortium whose sites are invited."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "consortium.yaml").write_text(text, encoding="utf-8")
    coordinator.init(root / "consortium.yaml", root / "hub")
    return Story(root)


def hashes(folder: Path) -> dict[str, str]:
    """Every file below `folder` and the hash of its bytes."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
