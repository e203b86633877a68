"""How far something is, on standard error: bars of a training and of the data sets that are scored; in a log, lines."""

import sys
import time

from tqdm import tqdm

from ama_core.formatting import duration
from ama_core.training.loop import Event

CLOCK = ("epoch", "lr", "images_per_s", "seconds", "eta_s")  # values of a `progress` event that the loop adds to the losses
LOG_SECONDS = 30  # between two lines in a log
N_LOSSES = 3  # that a bar has room for


def warn(*messages: str | None) -> None:
    """Say on standard error what a reader of the result must know; None is nothing to say, and a repetition is left out."""
    for message in filter(None, dict.fromkeys(messages)):
        print(f"Warning: {message}", file=sys.stderr)


def hidden(quiet: bool) -> bool | None:
    """tqdm's `disable`: None shows a bar on a terminal alone, so that a log holds messages and no bars."""
    return True if quiet else None


class SetBars:
    """A progress bar for every data set that is being scored."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.bar: tqdm | None = None
        self.name = None

    def __enter__(self) -> "SetBars":
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.close()

    def update(self, done: int, total: int, name: str) -> None:
        if name != self.name or (self.bar and done < self.bar.n):
            if self.bar:
                self.bar.close()
            self.name, self.bar = name, tqdm(total=total, unit="image", desc=name, disable=hidden(self.quiet))
        self.bar.update(done - self.bar.n)


class TrainingLog:
    """A line now and then on how far a training is, for a log: step and total, rate, time left, and the latest AUROCs."""

    def __init__(self):
        self.written: float | None = None  # when the last line was
        self.aurocs: dict[str, str] = {}  # what is compared -> the latest AUROC of each score

    def update(self, event: Event) -> None:
        for kind, prefix, what in (("validation", "auroc_", "validation"), ("watch", "watched_", "watched")):
            if event.kind == kind:
                found = (f"{name.removeprefix(prefix)} {value:.3f}" for name, value in event.values.items())
                self.aurocs[what] = f"{what} AUROC {', '.join(found)}"
        if event.kind != "progress":
            return
        now, last = time.monotonic(), event.step == event.total_steps
        if not last and self.written is not None and now - self.written < LOG_SECONDS:
            return
        self.written = now
        rate, left = event.values["images_per_s"], event.values["eta_s"]
        parts = [
            f"step {event.step:,} of {event.total_steps:,} ({event.step / event.total_steps:.0%})",
            f"{rate:,.0f} images/s" if rate >= 10 else f"{rate:.2g} images/s",
            "done" if last else f"{duration(left)} left",
            *self.aurocs.values(),
        ]
        print("; ".join(parts), file=sys.stderr, flush=True)


class TrainingBar:
    """Steps, time left and the losses, as a bar on a terminal and as lines in a log; then the measuring of data sets."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.log = None if quiet or sys.stderr.isatty() else TrainingLog()
        self.bar: tqdm | None = None
        self.sets = SetBars(quiet)
        self.warned = self.announced = False

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.close()
        self.sets.__exit__()

    def update(self, event: Event) -> None:
        if self.log:
            self.log.update(event)
        if self.bar is None:
            self.bar = tqdm(total=event.total_steps, unit="step", disable=hidden(self.quiet))
        self.bar.update(event.step - self.bar.n)
        if event.warning and not (self.quiet or self.warned):
            self.warned = True
            tqdm.write(f"step {event.step}: {event.warning}", file=sys.stderr)
        if event.kind == "progress":
            losses = [name for name in event.values if name not in CLOCK][:N_LOSSES]
            self.bar.set_postfix({key: f"{event.values[key]:.4g}" for key in (*losses, "images_per_s")})
        elif event.kind == "validation" and not self.log:
            tqdm.write(f"step {event.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in event.values.items()), file=sys.stderr)
        elif event.kind == "done":
            self.bar.close()

    def measuring(self, done: int, total: int, name: str) -> None:
        if not (self.quiet or self.announced):
            self.announced = True
            said = "Trained. It is measured against the data sets that are available here; --no-measure leaves that out."
            tqdm.write(said, file=sys.stderr)
        self.sets.update(done, total, name)
