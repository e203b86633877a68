"""Progress bars, on standard error: of a training, and of the data sets that are scored."""

import sys

from tqdm import tqdm

from ama_core.training.loop import Event

CLOCK = ("epoch", "lr", "images_per_s", "seconds", "eta_s")  # values of a `progress` event that the loop adds to the losses
N_LOSSES = 3  # that a bar has room for


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


class TrainingBar:
    """Steps, time left and the losses; then the measuring of data sets."""

    def __init__(self, quiet: bool):
        self.quiet = quiet
        self.bar: tqdm | None = None
        self.sets = SetBars(quiet)

    def __enter__(self) -> "TrainingBar":
        return self

    def __exit__(self, *_) -> None:
        if self.bar:
            self.bar.close()
        self.sets.__exit__()

    def update(self, event: Event) -> None:
        if self.bar is None:
            self.bar = tqdm(total=event.total_steps, unit="step", disable=hidden(self.quiet))
        self.bar.update(event.step - self.bar.n)
        if event.kind == "progress":
            losses = [name for name in event.values if name not in CLOCK][:N_LOSSES]
            self.bar.set_postfix({key: f"{event.values[key]:.4g}" for key in (*losses, "images_per_s")})
        elif event.kind == "validation":
            tqdm.write(f"step {event.step}: " + ", ".join(f"{k} {v:.3f}" for k, v in event.values.items()), file=sys.stderr)
        elif event.kind == "done":
            self.bar.close()

    def measuring(self, done: int, total: int, name: str) -> None:
        self.sets.update(done, total, name)
