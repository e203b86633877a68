"""Work divided among processes that do not know each other, such as the tasks of a Slurm array: shard i of n."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ama_core.errors import ConfigError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The `number`-th of `of` shards, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From `i/n`. Raises ConfigError."""
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        number, of = map(int, found.groups()) if found else (0, 0)
        if not 1 <= number <= of:
            raise ConfigError(f"--shard {text}: write it as i/n, from 1/n to n/n, for example 3/8.")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, place: int) -> bool:
        """Whether what stands at `place` (from 0) belongs to this shard."""
        return place % self.of == self.number - 1

    def of_items(self, items: Sequence[Item]) -> list[Item]:
        """This shard's share of items in a fixed order: every `of`-th of them, from its own number on."""
        return [item for place, item in enumerate(items) if self.has(place)]

    def file(self, whole: Path) -> Path:
        """Where this shard's share of the file `whole` lies: `scores.csv` becomes `scores.3-of-8.csv`."""
        return whole.with_name(f"{whole.stem}.{self.number}-of-{self.of}{whole.suffix}")

    @classmethod
    def divisions(cls, whole: Path) -> set[int]:
        """Into how many shards the file `whole` was divided, by its shards; several where calls differed."""
        pattern = re.compile(rf"{re.escape(whole.stem)}\.\d+-of-(\d+){re.escape(whole.suffix)}")
        return {int(match[1]) for file in whole.parent.iterdir() if (match := pattern.fullmatch(file.name))}

    def all(self) -> list["Shard"]:
        """Every shard of as many."""
        return [Shard(number, self.of) for number in range(1, self.of + 1)]
