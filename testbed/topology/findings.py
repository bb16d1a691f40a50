"""Notes problems by where they are in the document."""

from __future__ import annotations

from testbed.topology import document
from testbed.topology.document import DocumentNode, DocumentPath
from testbed.topology.problems import Mark, ProblemCollector


class Findings:
    """A collector of problems that knows the document. A path may go deeper than the document does."""

    def __init__(self, root: DocumentNode, problems: ProblemCollector) -> None:
        self._root = root
        self._problems = problems

    def __len__(self) -> int:
        return len(self._problems)

    def at_value(self, path: DocumentPath, message: str, hint: str = "") -> None:
        self._problems.add(document.value_mark(self._root, path), message, hint)

    def at_key(self, path: DocumentPath, message: str, hint: str = "") -> None:
        self._problems.add(document.key_mark(self._root, path), message, hint)

    def value_mark(self, path: DocumentPath) -> Mark:
        return document.value_mark(self._root, path)
