"""A second opinion on the generated schemas: a validator of the JSON Schema subset that they use, written without msgspec."""

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_KNOWN = {
    "$schema", "$id", "$defs", "$ref", "title", "description", "default", "contentEncoding", "type", "enum", "anyOf",
    "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems",
}  # fmt: skip


def problems(value: object, schema: Schema | bool, root: Schema, path: str = "$") -> Iterator[str]:
    """What is wrong with `value`; raises on a keyword that it does not know, so that none is passed over."""
    if isinstance(schema, bool):
        if not schema:
            yield f"{path}: not allowed"
        return
    assert schema.keys() <= _KNOWN, schema.keys() - _KNOWN
    if "$ref" in schema:
        yield from problems(value, root["$defs"][schema["$ref"].removeprefix("#/$defs/")], root, path)
    if "anyOf" in schema and all(any(True for _ in problems(value, option, root, path)) for option in schema["anyOf"]):
        yield f"{path}: matches no alternative"
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: not one of the values"
    kind = schema.get("type")
    if kind and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        yield f"{path}: not of type {kind}"
        return
    if isinstance(value, dict):
        yield from (f"{path}.{name}: missing" for name in schema.get("required", []) if name not in value)
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties", True))
            yield from problems(item, inner, root, f"{path}.{name}")
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            yield f"{path}: wrong number of items"
        first = schema.get("prefixItems", [])
        for index, item in enumerate(value):
            yield from problems(item, first[index] if index < len(first) else schema.get("items", True), root, f"{path}[{index}]")
