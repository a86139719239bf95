"""The site's machine: disk, memory, processors, GPU, and where patients' data could stay behind.

In:  the site's folder, its tables, the kernel's own files.   Out: findings.   Never: root; a setting that is changed.

What is read of limits and of the environment is that of the process that checks. Run it as the services run.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from fairsynth.operations.findings import Finding, failed, ok, warning

DISK, MEMORY, PROCESSORS, GPU = "disk", "memory", "processors", "GPU"
CORES, SWAP, TEMPORARY, FLOWER_HOME = "core dumps", "swap", "temporary files", "FLWR_HOME"
GIB = 1 << 30
DISK_BASE, DISK_TIMES, PACKED_TIMES = 2 * GIB, 1, 5  # free bytes: a base, and for each byte of tables (packed tables)
MEMORY_NEEDED, MEMORY_LEAST = 4 * GIB, 2 * GIB  # available bytes
PACKED = {".gz", ".zst", ".bz2", ".xz", ".parquet"}
MEMINFO, SWAPS = Path("/proc/meminfo"), Path("/proc/swaps")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
CORE_PATTERN = Path("/proc/sys/kernel/core_pattern")


def disk_finding(folder: Path, data: Path | None) -> Finding:
    """Whether there is room for what a study makes: events, cohort, generator, synthetic patients, logs."""
    free = shutil.disk_usage(folder).free
    need = disk_needed(data) if data is not None and data.is_dir() else DISK_BASE
    said = f"{_gib(free)} free, {_gib(need)} wanted"
    if free < need // 2:
        return failed(DISK, said, do=f"free space on the file system of {folder}, or move the folder")
    if free < need:
        return warning(DISK, said, do=f"free space on the file system of {folder} before a long study")
    return ok(DISK, said)


def disk_needed(data: Path) -> int:
    """Bytes that a site's folder wants for these tables: docs/doctor.md says how the rule was measured."""
    sizes = ((path.suffix.lower() in PACKED, path.stat().st_size) for path in data.rglob("*") if path.is_file())
    return DISK_BASE + sum(size * (PACKED_TIMES if packed else DISK_TIMES) for packed, size in sizes)


def memory_finding(meminfo: Path = MEMINFO, limits: tuple[Path, ...] = LIMITS) -> Finding:
    """Whether what is available is enough for the site's processes."""
    found = [*_available(meminfo), *_limits(limits)]
    if not found:
        return ok(MEMORY, "cannot be read on this system")
    available = min(found)
    said = f"{_gib(available)} available, {_gib(MEMORY_NEEDED)} wanted"
    if available < MEMORY_LEAST:
        return failed(MEMORY, said, do="end other programs, or give the machine or its container more memory")
    if available < MEMORY_NEEDED:
        return warning(MEMORY, said, do="end other programs: large tables may not fit beside the app")
    return ok(MEMORY, said)


def processors_finding() -> Finding:
    """How many the site's processes may use."""
    number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if number < 2:
        do = "give the machine a second: SuperNode and app run side by side, each message would wait for the other"
        return warning(PROCESSORS, "1 usable", do=do)
    return ok(PROCESSORS, f"{number} usable")


def gpu_finding() -> Finding:
    """Whether torch can use one. A study trains on the processors: only `fit`, outside of studies, asks for a GPU."""
    import torch  # seconds

    if torch.cuda.is_available():
        return ok(GPU, f"{torch.cuda.get_device_name(0)}, usable by torch; studies do not use it")
    if Path("/dev/nvidia0").exists():
        return ok(
            GPU, "one is here, torch cannot use it; studies do not need it", do="a CUDA build of torch and its driver"
        )
    return ok(GPU, "none; studies do not need one")


def cores_finding(pattern: Path = CORE_PATTERN) -> Finding:
    """Whether a crash would write memory, with patients in it, to disk."""
    soft, _ = resource.getrlimit(resource.RLIMIT_CORE)
    if soft == 0:
        return ok(CORES, "off")
    where = _line(pattern)
    to = "handed to a program of this machine" if where.startswith("|") else "written to a file"
    return warning(
        CORES,
        f"on: memory of a process that crashes, with patients in it, is {to}",
        do="ulimit -c 0 in the shell, LimitCORE=0 in the service",
    )


def swap_finding(swaps: Path = SWAPS) -> Finding:
    """Whether memory may go to a disk that is perhaps not encrypted: a note, since that cannot be seen from here."""
    devices = [line.split()[0] for line in _text(swaps).splitlines()[1:] if line.split()]
    on_disk = [device for device in devices if "zram" not in device]
    if not on_disk:
        return ok(SWAP, "none on disk")
    return ok(
        SWAP, f"{len(on_disk)} in use", do="patients' data may be swapped out: see that it is on an encrypted disk"
    )


def temporary_finding(folder: Path) -> Finding:
    """Whether what is written for a moment stays on the file system of the site's folder."""
    place = Path(tempfile.gettempdir())
    if place.stat().st_dev == folder.stat().st_dev:
        return ok(TEMPORARY, f"{place}, on the file system of the site's folder")
    do = f"set TMPDIR to a folder of mode 0700 beside {folder}, in the service too"
    return warning(
        TEMPORARY, f"{place}, on another file system: events pass through it while tables are checked", do=do
    )


def flower_home_finding(environment: Mapping[str, str]) -> Finding:
    """Whether Flower can unpack the app that the server sends: it goes to FLWR_HOME."""
    named = environment.get("FLWR_HOME")
    if not named:
        return ok(FLOWER_HOME, "not set here", do="each of the site's services sets its own, writable and of mode 0700")
    home = Path(named)
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        return failed(FLOWER_HOME, f"{home} is no folder that this user can write to", do=f"make {home}, mode 0700")
    if home.stat().st_mode & 0o022:
        do = f"chmod 700 {home}: whoever writes there, runs code beside the tables"
        return failed(FLOWER_HOME, f"{home} can be written to by others", do=do)
    return ok(FLOWER_HOME, f"{home}, writable")


def _available(meminfo: Path) -> Iterator[int]:
    for line in _text(meminfo).splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _limits(limits: tuple[Path, ...]) -> Iterator[int]:
    """What a container may use in all, where one is named."""
    for path in limits:
        if (line := _line(path)).isdigit():
            yield int(line)


def _line(path: Path) -> str:
    return next(iter(_text(path).splitlines()), "").strip()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _gib(number: int) -> str:
    return f"{number / GIB:.1f} GiB"
