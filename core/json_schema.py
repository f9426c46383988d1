"""Whether a JSON value matches a JSON Schema: the subset that models are asked for, in bounded time, without any look-up.

Checked are type, enum, const, properties, required, additionalProperties, items, prefixItems, anyOf, oneOf, allOf and
references inside the schema (JSON Schema 2020-12, core and validation). What is not checked (patterns, formats, limits)
accepts everything, so that a value which really matches is never called wrong.
"""

from typing import Any, Final

MAX_STEPS: Final = 10_000
"""Schemas applied to values, options and names compared, before the check gives up."""
MAX_DEPTH: Final = 64

_TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "null": (type(None),),
    "number": (int, float),
}


class GaveUp(ValueError):
    """The schema is malformed, too deep or too dear to apply: nothing is known about the value."""


def mismatch(value: Any, schema: Any) -> str | None:
    """The first keyword that `value` fails, None where it matches. Raises GaveUp.

    >>> mismatch({"a": 1}, {"type": "object", "required": ["b"]})
    'required'
    >>> mismatch([1, "x"], {"items": {"type": "integer"}})
    'type'
    """
    return _Check(schema).apply(value, schema, 0)


class _Check:
    """One value against one schema: counts its steps."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0

    def apply(self, value: Any, schema: Any, depth: int) -> str | None:
        self._spend(1)
        if depth > MAX_DEPTH:
            raise GaveUp
        if isinstance(schema, bool):
            return None if schema else "false"
        if not isinstance(schema, dict):
            raise GaveUp
        if "$ref" in schema and (failed := self.apply(value, self._target(schema["$ref"]), depth + 1)):
            return failed
        if "type" in schema and not _is_type(value, schema["type"]):
            return "type"
        if "enum" in schema:
            options = _listed(schema["enum"])
            self._spend(len(options))
            if not any(_equal(value, option) for option in options):
                return "enum"
        if "const" in schema and not _equal(value, schema["const"]):
            return "const"
        return (
            self._combined(value, schema, depth)
            or (self._object(value, schema, depth) if isinstance(value, dict) else None)
            or (self._array(value, schema, depth) if isinstance(value, list) else None)
        )

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise GaveUp

    def _combined(self, value: Any, schema: dict[str, Any], depth: int) -> str | None:
        for part in _listed(schema.get("allOf", [])):
            if failed := self.apply(value, part, depth + 1):
                return failed
        for keyword in ("anyOf", "oneOf"):
            options = _listed(schema.get(keyword, []))
            matching = sum(self.apply(value, option, depth + 1) is None for option in options)
            if options and (matching == 0 or (keyword == "oneOf" and matching > 1)):
                return keyword
        return None

    def _object(self, value: dict[str, Any], schema: dict[str, Any], depth: int) -> str | None:
        properties = schema.get("properties", {})
        if not isinstance(properties, dict):
            raise GaveUp
        required = _listed(schema.get("required", []))
        self._spend(len(required))
        if any(not isinstance(name, str) or name not in value for name in required):
            return "required"
        others = schema.get("additionalProperties", True)
        if schema.get("patternProperties"):
            others = True
        for name, item in value.items():
            if name in properties:
                failed = self.apply(item, properties[name], depth + 1)
            elif others is False:
                return "additionalProperties"
            else:
                failed = None if others is True else self.apply(item, others, depth + 1)
            if failed:
                return failed
        return None

    def _array(self, value: list[Any], schema: dict[str, Any], depth: int) -> str | None:
        first = _listed(schema.get("prefixItems", []))
        items = schema.get("items", True)
        if isinstance(items, list):  # the form before 2020-12
            first, items = items, True
        for number, item in enumerate(value):
            if failed := self.apply(item, first[number] if number < len(first) else items, depth + 1):
                return failed
        return None

    def _target(self, reference: Any) -> Any:
        """The schema that a reference inside the document names; anything else gives up."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise GaveUp
        target = self._root
        for step in reference[1:].split("/")[1 : MAX_DEPTH + 1]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, dict) or name not in target:
                raise GaveUp
            target = target[name]
        return target


def _is_type(value: Any, wanted: Any) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    for name in names:
        if name == "integer":
            if not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
                return True
        elif not isinstance(name, str) or name not in _TYPES:
            raise GaveUp
        elif isinstance(value, _TYPES[name]) and not (name == "number" and isinstance(value, bool)):
            return True
    return False


def _equal(value: Any, option: Any) -> bool:
    """JSON's equality: true is not 1. Scalars only; of nested values, Python's."""
    return bool(value == option) and isinstance(value, bool) == isinstance(option, bool)


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise GaveUp
    return value
