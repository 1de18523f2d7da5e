"""Counts checks. One that fails says why and does not stop the next."""

from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class Passed:
    """Whether a check has passed, once it is over."""

    yes: bool = False


class Tally:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    @contextmanager
    def check(self, name: str, quiet: bool = False):
        """Everything in the block must hold; `assert` says what. A quiet check has a line only if it fails."""
        result = Passed()
        try:
            yield result
        except Exception as error:
            self.failed += 1
            print(f"FAIL  {name}\n      {type(error).__name__}: {error}".rstrip(), flush=True)
        else:
            self.passed += 1
            result.yes = True
            if not quiet:
                print(f"ok    {name}", flush=True)

    def close(self) -> int:
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0
