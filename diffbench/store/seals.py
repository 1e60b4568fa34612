"""Checksums inside records: run records, events, failures, and what a state folder says of itself.

A record is a JSON object.  Its seal is the first 16 digits of

    SHA-256(of + canonical JSON of all other keys)

where ``of`` says what the record belongs to, so that a record that lies elsewhere does not fit.  Records that earlier
versions wrote have no seal, and are taken as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

KEY = "seal"


def sealed(record: Mapping[str, Any], of: str = "") -> dict[str, Any]:
    """Return a record with its seal."""
    return {**record, KEY: _seal(record, of)}


def opened(content: bytes, of: str = "", *, needed: bool = False) -> dict[str, Any]:
    """Return the record in a JSON text, without its seal.

    Args:
        content: the text.
        of: what the record belongs to.
        needed: whether a record without a seal is refused.

    Raises:
        ValueError: when it is no JSON object, or its seal does not fit or is missing where it is needed.
    """
    try:
        record = json.loads(content)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if not isinstance(record, dict):
        raise ValueError("no JSON object")
    seal = record.pop(KEY, None)
    if seal is None and needed:
        raise ValueError("it has no checksum")
    if seal is not None and seal != _seal(record, of):
        raise ValueError("its checksum does not fit")
    return record


def _seal(record: Mapping[str, Any], of: str) -> str:
    rest = {key: value for key, value in record.items() if key != KEY}
    text = of + json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
