"""Progress of a study on the terminal, from the events that the study reports.

In:  events (journal lines and the runner's own).   Out: rich progress bars; plain lines when not a terminal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from fairsynth.cli.console import errors

ARM_TITLES = {"plain": "training, plain generator", "fairsynth": "training, FairSynth generator"}


class StudyProgress:
    """A context manager; call it with each event."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            *self._columns(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
        )
        self.current: TaskID | None = None
        self.arm = ""
        self.rounds = 0

    def _columns(self) -> tuple[ProgressColumn, ...]:
        """What else a line shows."""
        return ()

    def __enter__(self) -> Self:
        self.progress.start()
        self._step("checking every input")
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if kind is None and self.current is not None:
            self._finish()
        self.progress.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        """Show one event; events of an unknown kind are ignored."""
        handler = getattr(self, f"_on_{event.get('event')}", None)
        if handler is not None:
            handler(event)

    def expect(self, rounds: int) -> None:
        """Tell how many rounds each arm has."""
        self.rounds = rounds

    def _on_checked(self, event: dict[str, Any]) -> None:
        self._step("opening the sites", note=f"{len(event['sites'])} sites")

    def _on_simulating(self, event: dict[str, Any]) -> None:
        self._step(f"simulating {event['site']}", note=f"{event['patients']:,} patients")

    def _on_approved(self, event: dict[str, Any]) -> None:
        self._step("approving the study for all sites, which are yours", note=f"officer: {event['officer']}")

    def _on_preparing(self, event: dict[str, Any]) -> None:
        self._step(f"extracting events and building the cohort of {event['site']}")

    def _on_starting(self, event: dict[str, Any]) -> None:
        self._step("starting Flower", note=str(event.get("engine", "")))

    def _on_study(self, event: dict[str, Any]) -> None:
        self._step("enrolling the sites")

    def _on_resumed(self, event: dict[str, Any]) -> None:
        arm, done = event["arm"], event["round"]
        self._step("going on", note=f"after round {done} of arm {arm}" if arm else "from the beginning")

    def _on_restarting(self, event: dict[str, Any]) -> None:
        self._step("starting Flower's run again", note=f"{event['problem']}; {event['left']} more times")

    def _on_enrolled(self, event: dict[str, Any]) -> None:
        self._step("agreeing on one vocabulary")

    def _on_agreed(self, event: dict[str, Any]) -> None:
        self._arm("plain")

    def _on_refused(self, event: dict[str, Any]) -> None:
        """A site has no part in a phase: never silently."""
        self.console.print(f"  {event['site']} has no part in {event['phase']}: {event['code']}", highlight=False)

    def _on_round(self, event: dict[str, Any]) -> None:
        if event["arm"] != self.arm:
            self._arm(event["arm"])
        if self.current is not None:
            done = min(int(event["round"]) + 1, self.rounds)
            said = []
            if event.get("nll_validation") is not None:
                said.append(f"validation NLL {event['nll_validation']:.2f} nats a visit")
            if event.get("loss") is not None:
                said.append(f"L_F {event['loss']:.3f}")
            note = ", ".join(said)
            self.progress.update(self.current, completed=done, note=note)

    def _on_teaching(self, event: dict[str, Any]) -> None:
        self._step("teaching the sites' common model of who has the outcome")

    def _on_taught(self, event: dict[str, Any]) -> None:
        self._step("trying which of the generator's patients to add")

    def _on_auditing(self, event: dict[str, Any]) -> None:
        self._step("generating at home, training predictors, evaluating on held-out real patients")

    def _on_audited(self, event: dict[str, Any]) -> None:
        self._step("writing the report")

    def _arm(self, arm: str) -> None:
        self.arm = arm
        self._step(ARM_TITLES.get(arm, arm), total=self.rounds or None)

    def _step(self, description: str, *, total: int | None = 1, note: str = "") -> None:
        self._finish()
        self.current = self.progress.add_task(description, total=total, note=note)
        if not self.console.is_terminal:
            self.console.print(f"- {description} {note}".rstrip(), highlight=False)

    def _finish(self) -> None:
        if self.current is not None:
            task = self.progress.tasks[self.progress.task_ids.index(self.current)]
            total = task.total or 1
            self.progress.update(self.current, total=total, completed=total)


class _Left(ProgressColumn):
    """The time left, of a step that counts."""

    def render(self, task: Task) -> Text:
        """As `1:02:03 left`."""
        seconds = None if task.finished or (task.total or 1) <= 1 else task.time_remaining
        return Text("" if seconds is None else f"{timedelta(seconds=int(seconds))} left")


class TrainingProgress(StudyProgress):
    """The same for one site trained alone, with the time left if training does not stop early."""

    def _columns(self) -> tuple[ProgressColumn, ...]:
        return (_Left(),)

    def _on_fitting(self, event: dict[str, Any]) -> None:
        self._step("training", total=None, note=f"{event['patients']:,} patients, {event['codes']:,} codes")

    def _on_fit_step(self, event: dict[str, Any]) -> None:
        if self.current is None:
            return
        if self.progress.tasks[self.progress.task_ids.index(self.current)].total is None:  # the first step told of
            self.progress.reset(self.current, completed=event["done"], total=event["steps"])
        self.progress.update(self.current, completed=event["done"])

    def _on_fit_epoch(self, event: dict[str, Any]) -> None:
        note = f"epoch {event['epoch']} of {event['epochs']}: training NLL {event['train']:.3f} nats a visit"
        if event["validation"] is not None:
            note += f", validation {event['validation']:.3f} (best {event['best']:.3f})"
        if self.current is not None:
            self.progress.update(self.current, note=note)
        if not self.console.is_terminal:
            self.console.print(f"  {note}", highlight=False)


@contextmanager
def drawing(patients: int) -> Iterator[Callable[[int], None]]:
    """A bar of synthetic patients drawn, on standard error; then their tables are written."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), _Left(), console=errors, transient=True) as progress:
        task = progress.add_task("drawing synthetic patients", total=patients)

        def on_patients(drawn: int) -> None:
            words = "writing their tables" if drawn == patients else "drawing synthetic patients"
            progress.update(task, completed=drawn, description=words)

        yield on_patients
