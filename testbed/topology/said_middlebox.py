"""Boxes that are said on a command line, in the words of topology files."""

from __future__ import annotations

from pydantic import ValidationError

from testbed.errors import TopologyError
from testbed.middlebox.settings import BoxSettings
from testbed.topology.document import parse_document, plain_value
from testbed.topology.middleboxes import NATS, MiddleboxFile
from testbed.topology.problems import Mark, ProblemCollector
from testbed.topology.shape import finding_words


def parse_middlebox(text: str) -> tuple[BoxSettings, ...]:
    """The boxes of ``strip: {subtypes: [dss]}, split: {}``. Raises ValueError that tells every problem."""
    # The brace that makes a mapping of it is not the user's.
    problems = ProblemCollector("middlebox", lambda mark: Mark(mark.line, max(1, mark.column - 1)))
    document = parse_document(f"{{{text}}}", problems)
    try:
        problems.raise_if_any()
        file = MiddleboxFile.model_validate(plain_value(document) if document is not None else {})
    except ValidationError as error:
        raise ValueError("; ".join(_finding_texts(error))) from None
    except TopologyError as error:
        raise ValueError(str(error)) from None
    for kind in NATS:
        if kind in file.model_fields_set and getattr(file, kind) is None:
            raise ValueError(f"{kind!r} needs an 'address' (of its outer side)")
    return file.boxes()


def _finding_texts(error: ValidationError) -> list[str]:
    texts = []
    for details in error.errors(include_url=False):
        path = ("links", 0, "middlebox", *details["loc"])
        if details["type"] == "missing":
            message, hint = f"{details['loc'][-1]!r} is missing", ""
        else:
            message, hint = finding_words(details, path)
        texts.append(f"{message} — {hint}" if hint else message)
    return texts
