"""What others wrote, made harmless before it is used, shown or written again.

    described   the JSON file of an export: of the keys, types and depth that it must have
    printable   text without characters that a terminal or a page would obey
    neutral     a field of a CSV file that no spreadsheet calculates

Pages escape text where they show it (``web``); a checksum shows that a file is whole, not who wrote it.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

#: The deepest nesting of a JSON file.
DEEPEST = 20
#: How a field begins that spreadsheets take for a formula, or skip before they look for one.
FORMULA = ("=", "+", "-", "@", "\t", "\r")

Name = Annotated[str, Field(max_length=200)]


class _Described(BaseModel):
    """Keys of other versions are let through; the types of known ones are exact."""

    model_config = ConfigDict(strict=True, extra="allow")


class MetricAbout(_Described):
    """A metric in an export."""

    head: Name
    unit: Name = "-"
    better: Literal["lower", "higher"] | None = None
    ranks: bool = True


class ControlAbout(_Described):
    """A control in an export."""

    name: Name


class VariantAbout(_Described):
    """A variant in an export, with everything merged into it."""

    paper: Name = ""
    control: ControlAbout | None = None
    solvers: dict[Name, Any] = {}
    likelihoods: dict[Name, Any] = {}
    restorers: dict[Name, Any] = {}
    analyses: dict[Name, Any] = {}


class EnvironmentAbout(_Described):
    """What ran the jobs of an export."""

    commits: list[Name] = []
    devices: list[Name] = []
    platforms: list[Name] = []
    versions: dict[Name, list[Name]] = {}


class RestorationsAbout(_Described):
    """The restorations of an export."""

    variants: list[Name] = []
    restorers: dict[Name, Any] = {}


class SettingsAbout(_Described):
    """The keys of a benchmark file that all numbers of an export depend on."""

    data: dict[str, Any] = {}
    restorations: RestorationsAbout = RestorationsAbout()


class About(_Described):
    """The JSON file of an export.

    origin: who made it, in their own words.
    title, note: of the data set and of the benchmark.
    ran: when the first and the last of its jobs started.
    """

    benchmark: Name
    rows: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    metrics: dict[Name, MetricAbout]
    settings: SettingsAbout
    remark: str = ""
    variants: dict[Name, VariantAbout]
    environment: EnvironmentAbout
    origin: Name = ""
    title: Name = ""
    note: str = ""
    ran: Annotated[list[Name], Field(max_length=2)] = []


def described(content: bytes) -> dict[str, Any]:
    """Return the JSON object in a file, its text made printable.

    Raises:
        ValueError: when it is no JSON object, or one with NaN, an infinite number or deep nesting.
    """
    try:
        found = json.loads(content, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return dict(_printable(found, DEEPEST))


def refusal(found: dict[str, Any]) -> str:
    """Return the first key of an export's JSON file that is not as ``About`` says; empty where all are."""
    try:
        About.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{printable('.'.join(map(str, first['loc'])))[:100]}: {first['msg']}"
    return ""


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not a number of JSON")


def _printable(value: Any, depth: int) -> Any:
    if not depth:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        return {printable(key): _printable(each, depth - 1) for key, each in value.items()}
    if isinstance(value, list):
        return [_printable(each, depth - 1) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("it has an infinite number")
    return printable(value) if isinstance(value, str) else value


def printable(text: str) -> str:
    """Return text whose every character is printed: spaces for white space, a mark for controls and invisible ones."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() else " " if each.isspace() else "\ufffd" for each in text
    )


def neutral(text: str) -> str:
    """Return a field of a CSV file behind an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.startswith(FORMULA) and len(text) > 1 else text
