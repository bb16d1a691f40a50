"""Python within scripts: ``%{ assert tcpi_snd_cwnd == 10 }%``.

A script is code: who plays it runs what stands in it. The namespace is small so that scripts stay portable
and fail with clear messages, not to keep anyone from doing harm.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Mapping
from types import CodeType

from testbed.packetdrill.constants import CONSTANTS
from testbed.packetdrill.time_limit import TimeLimitError

_BUILTINS = (
    "abs all any bool bytes dict divmod enumerate float int isinstance len list map max min pow print range"
    " repr reversed round set sorted str sum tuple zip AssertionError Exception ValueError KeyError"
)


class CodeBlockError(Exception):
    """A block that failed; the message says which line of it, and the values of the names in that line."""


class CodeBlocks:
    """The blocks of one script share their variables."""

    def __init__(self) -> None:
        allowed = {name: getattr(builtins, name) for name in _BUILTINS.split() if hasattr(builtins, name)}
        self._namespace: dict[str, object] = {**CONSTANTS, "__builtins__": allowed}

    def run(self, text: str, variables: Mapping[str, object]) -> None:
        """Raises CodeBlockError."""
        code = compiled(text)
        self._namespace.update(variables)
        try:
            exec(code, self._namespace)
        except TimeLimitError:
            raise
        except Exception as error:
            raise CodeBlockError(self._explain(text, error, variables)) from None

    def _explain(self, text: str, error: Exception, variables: Mapping[str, object]) -> str:
        number = 1
        trace = error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == "<script>":
                number = trace.tb_lineno
            trace = trace.tb_next
        line = text.splitlines()[number - 1].strip()
        if isinstance(error, AssertionError):
            said = f": {error}" if str(error) else ""
            message = f"not true: {line}{said}"
        else:
            message = f"{type(error).__name__}: {error}, in: {line}"
        used = [name for name in _names_in(line) if name in self._namespace and name not in CONSTANTS]
        values = ", ".join(
            f"{name} = {self._namespace[name]!r}"
            for name in used
            if isinstance(self._namespace[name], int | str | bytes | float | list | tuple)
        )
        return f"{message} ({values})" if values else message


def compiled(text: str) -> CodeType:
    """Raises CodeBlockError for what is no Python."""
    try:
        return compile(text, "<script>", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        where = f" (line {error.lineno} of the code)" if isinstance(error, SyntaxError) else ""
        reason = error.msg if isinstance(error, SyntaxError) else str(error)
        raise CodeBlockError(f"no valid Python: {reason}{where}") from None


def _names_in(line: str) -> list[str]:
    try:
        tree = ast.parse(line)
    except SyntaxError:
        return []
    return sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
