"""Orders to the plugins of tests (`crane_test_plugins.faults`), in a folder all workers see."""

from dataclasses import dataclass
from pathlib import Path

VARIABLE = "CRANE_TEST_FAULTS"
FAULTY_DISK = "crane_test_plugins.faulty_disk"
POISONED_READER = "crane_test_plugins.poisoned_reader"


@dataclass(frozen=True)
class Faults:
    """What workers are to suffer, and what they wrote down of it."""

    folder: Path

    def order(self, **faults: str) -> None:
        """Puts faults in force in place of all others; words are joined by underscores."""
        orders = {self.folder / name.replace("_", " "): value for name, value in faults.items()}
        for path, value in orders.items():
            hidden = self.folder / f".{path.name}"
            hidden.write_text(value)
            hidden.replace(path)
        for path in set(self.folder.iterdir()) - orders.keys():
            path.unlink()

    def noted(self, name: str) -> list[str]:
        """What faults wrote down."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def held(self) -> list[int]:
        """The processes that were held since the last orders, or still are."""
        return [int(line.split()[0]) for line in self.noted("held")]
