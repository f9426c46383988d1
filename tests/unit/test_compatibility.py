"""The compatibility checker finds every kind of break, and none where there is none."""

import copy
from typing import Any

import pytest

from schemas import jsonschema
from schemas.compatibility import breaks

OLD: dict[str, Any] = {
    "$ref": "#/$defs/Order",
    "$defs": {
        "Order": {
            "type": "object",
            "properties": {
                "id": {"type": "string"},
                "state": {"enum": ["open", "closed"], "default": "open"},
                "weight": {"anyOf": [{"type": "number"}, {"type": "null"}], "default": None},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "default": []},
                "pair": {
                    "type": "array",
                    "prefixItems": [{"type": "string"}, {"type": "integer"}],
                    "items": False,
                    "minItems": 2,
                    "maxItems": 2,
                },
                "tags": {"type": "object", "additionalProperties": {"type": "integer"}},
                "any": {},
            },
            "required": ["id"],
        },
        "Line": {
            "type": "object",
            "properties": {"sku": {"type": "string"}, "of": {"anyOf": [{"$ref": "#/$defs/Line"}, {"type": "null"}]}},
            "required": ["sku"],
        },
    },
}


def changed(path: str, value: Any = ...) -> dict[str, Any]:
    """A copy of OLD with the definition at `path` replaced, or deleted where no value is given."""
    new = copy.deepcopy(OLD)
    node: Any = new["$defs"]
    *steps, last = path.split("/")
    for step in steps:
        node = node[step]
    if value is ...:
        del node[last]
    else:
        node[last] = value
    return new


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (changed("Order/properties/tags"), "$.tags: the field was removed"),
        (changed("Line/properties/sku"), "$.lines[].sku: the field was removed"),
        (changed("Order/required", ["id", "tags"]), "$.tags: the field is newly required"),
        (changed("Order/required", []), "$.id: the field is no longer always there"),
        (changed("Order/properties/state/enum", ["open"]), "$.state: the value 'closed' was removed"),
        (changed("Order/properties/state/default", "closed"), "$.state: the default changed"),
        (changed("Order/properties/id", {"type": "integer"}), "$.id: type string is no longer accepted"),
        (changed("Order/properties/id", {"enum": ["a"]}), "$.id: any value was accepted, now only an enumeration's"),
        (changed("Order/properties/id", {"type": "string", "maxLength": 9}), "$.id: maxLength was tightened"),
        (changed("Order/properties/id", {"type": "string", "pattern": "x"}), "$.id: pattern was tightened"),
        (changed("Order/properties/weight", {"type": "number", "default": None}), "$.weight: type null is no longer accepted"),
        (
            changed("Order/properties/weight/anyOf", [{"type": "integer"}, {"type": "null"}]),
            "$.weight: type number is no longer accepted",
        ),
        (
            changed("Order/properties/tags/additionalProperties", {"type": "string"}),
            "$.tags[*]: type integer is no longer accepted",
        ),
        (changed("Order/properties/any", {"type": "string"}), "$.any: any type was accepted, now only string"),
        (changed("Order/additionalProperties", False), "$[*]: what is accepted was narrowed"),
        (
            changed("Order/properties/pair/prefixItems", [{"type": "string"}, {"type": "string"}]),
            "$.pair[1]: type integer is no longer accepted",
        ),
        (changed("Order/properties/pair/prefixItems", [{"type": "string"}]), "$.pair: the tuple's length changed"),
    ],
)
def test_a_break_is_named(new: dict[str, Any], words: str) -> None:
    assert breaks(OLD, new) == [words]


@pytest.mark.parametrize(
    "new",
    [
        OLD,
        changed("Order/properties/note", {"type": "string", "default": ""}),
        changed("Order/properties/state/enum", ["open", "held", "closed"]),
        changed("Order/properties/id", {"anyOf": [{"type": "string"}, {"type": "integer"}]}),
        changed("Order/properties/tags/additionalProperties", {"type": "number"}),
        changed("Order/properties/weight/anyOf", [{"type": "number"}, {"type": "string"}, {"type": "null"}]),
        changed("Order/properties/id", {}),
        changed("Order/description", "in other words"),
    ],
)
def test_a_widening_is_not_a_break(new: dict[str, Any]) -> None:
    assert breaks(OLD, new) == []


def test_a_definition_that_refers_to_itself_ends() -> None:
    assert breaks(OLD, changed("Line/properties/of", {"$ref": "#/$defs/Line"})) == [
        "$.lines[].of: type null is no longer accepted",
    ]


@pytest.mark.parametrize("name", sorted(jsonschema.schemas()))
def test_removing_any_field_of_any_message_is_found(name: str) -> None:
    now = jsonschema.schemas()[name]
    for struct, definition in now["$defs"].items():
        for field in definition.get("properties", {}):
            new = copy.deepcopy(now)
            del new["$defs"][struct]["properties"][field]
            found = breaks(now, new)
            assert found, (struct, field)
            assert all(problem.endswith("was removed") and f".{field}:" in problem for problem in found)
