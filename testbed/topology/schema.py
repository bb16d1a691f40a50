"""The published JSON Schema of topology files (draft 2020-12), for editors and validators.

``python -m testbed.topology.schema`` writes ``topology.schema.json`` anew after a change of the format.
"""

from __future__ import annotations

import json
from pathlib import Path

from testbed.topology.raw import TopologyFile

SCHEMA_FILE = Path(__file__).with_name("topology.schema.json")


def schema_text() -> str:
    """The schema as it is shipped."""
    schema = TopologyFile.model_json_schema(by_alias=True, mode="validation")
    _close(schema)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema
    schema["title"] = "Topology of the MPTCP testbed"
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _close(schema: object) -> None:
    """Pydantic leaves mappings open to keys that their key pattern does not match; the checker does not."""
    if isinstance(schema, list):
        for each in schema:
            _close(each)
    elif isinstance(schema, dict):
        if "patternProperties" in schema:
            schema["additionalProperties"] = False
        for each in schema.values():
            _close(each)


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
