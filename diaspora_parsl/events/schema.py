"""JSON Schema of the events, generated from the payload classes."""

from __future__ import annotations

import ast
import inspect
import itertools
import textwrap
from typing import Any, Final

import msgspec

from diaspora_parsl.events.envelope import Event, Payload, known_types

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_REF: Final = "#/$defs/{name}"
_PACKAGE: Final = __name__.partition(".")[0]


def own_types() -> dict[str, type[Payload]]:
    """Return the event types that this package defines, by name; types added by a program are excluded."""
    return {name: kind for name, kind in known_types().items() if kind.__module__.partition(".")[0] == _PACKAGE}


def json_schema() -> dict[str, Any]:
    """Return the schema of an event (draft 2020-12): the envelope, and its ``data`` by ``type``.

    Unknown fields and types are allowed, because readers ignore them.
    """
    types = own_types()
    (envelope, *_), components = msgspec.json.schema_components([Event, *types.values()], ref_template=_REF)
    definitions: dict[str, Any] = {name: components[name] for name in sorted(components)}
    described = {"Event": Event} | {kind.__name__: kind for kind in types.values()}
    for name, kind in described.items():
        definitions[name]["description"] = inspect.cleandoc(kind.__doc__ or "")
        for field, text in field_docs(kind).items():
            definitions[name]["properties"][field]["description"] = text
    return {
        "$schema": _DIALECT,
        "title": "Events of diaspora_parsl",
        **envelope,
        "allOf": [
            {
                "if": {"properties": {"type": {"const": name}}},
                "then": {"properties": {"data": {"$ref": _REF.format(name=kind.__name__)}}},
            }
            for name, kind in sorted(types.items())
        ],
        "$defs": definitions,
    }


def field_docs(kind: type) -> dict[str, str]:
    """Return the docstrings of the fields of a class and its bases, by field name."""
    docs: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if owner.__module__.partition(".")[0] != _PACKAGE:
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(owner))).body
        lines = body.body if isinstance(body, ast.ClassDef) else []
        for field, below in itertools.pairwise(lines):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    docs[name] = inspect.cleandoc(text)
    return docs
