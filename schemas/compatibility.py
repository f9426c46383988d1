"""Whether a JSON Schema still accepts, and still says, everything that an older one did: a pure comparison of two schemas.

It understands the subset that msgspec generates: references, objects, arrays, tuples, enumerations, alternatives and limits.
"""

from collections.abc import Iterator
from typing import Any, Final

Schema = dict[str, Any]

_LOWER_LIMITS: Final = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_LIMITS: Final = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")


def breaks(old: Schema, new: Schema) -> list[str]:
    """What `new` takes away from `old`, one sentence each; empty when it is backward compatible.

    A break is: a field removed, a field newly required, a type narrowed, an enumeration's value removed, a limit
    tightened, or a default changed (bytes without the field would mean something else).

    >>> breaks({"type": "number"}, {"type": "integer"})
    ['$: type number is no longer accepted']
    >>> breaks({"type": "integer"}, {"type": "number"})
    []
    """
    return list(_breaks(old, new, _Roots(old, new), "$", frozenset()))


class _Roots:
    """The two documents, to follow references in."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self.old, self.new = old, new

    @staticmethod
    def follow(schema: Schema, root: Schema) -> Schema:
        """The schema behind references; what stands beside `$ref` (a default, a description) is kept."""
        while "$ref" in schema:
            target = root
            for step in schema["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            schema = target | {key: value for key, value in schema.items() if key != "$ref"}
        return schema


def _breaks(old: Schema, new: Schema, roots: _Roots, path: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    pair = (old.get("$ref") or str(id(old)), new.get("$ref") or str(id(new)))
    if pair in seen:  # a definition that contains itself
        return
    seen |= {pair}
    old, new = roots.follow(old, roots.old), roots.follow(new, roots.new)
    if "default" in old and old["default"] != new.get("default", ...):
        yield f"{path}: the default changed"
    olds, news = _alternatives(old), _alternatives(new)
    if len(olds) == 1 and len(news) == 1:
        yield from _one(olds[0], news[0], roots, path, seen)
        return
    for option in olds:
        # The alternative that takes nothing away, else the words of the nearest one.
        tried = [list(_breaks(option, candidate, roots, path, seen)) for candidate in news]
        nearest = min(tried, key=lambda found: (any("no longer accepted" in problem for problem in found), len(found)))
        yield from nearest


def _alternatives(schema: Schema) -> list[Schema]:
    options: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or [schema]
    return options


def _types(schema: Schema) -> frozenset[str] | None:
    """Type names that a schema accepts; None for anything."""
    if "type" in schema:
        names = schema["type"]
        return frozenset(names if isinstance(names, list) else [names])
    if "enum" in schema:
        return frozenset(_type_name(value) for value in schema["enum"])
    if "const" in schema:
        return frozenset({_type_name(schema["const"])})
    return None


def _type_name(value: object) -> str:
    if value is None:
        return "null"
    return {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}.get(type(value), "object")


def _accepts(types: frozenset[str] | None, name: str) -> bool:
    return types is None or name in types or (name == "integer" and "number" in types)


def _one(old: Schema, new: Schema, roots: _Roots, path: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    old_types, new_types = _types(old), _types(new)
    if old_types is None and new_types is not None:
        yield f"{path}: any type was accepted, now only {', '.join(sorted(new_types))}"
        return
    gone = sorted(name for name in old_types or () if not _accepts(new_types, name))
    if gone:
        yield f"{path}: type {', '.join(gone)} is no longer accepted"
        return
    yield from _values(old, new, path)
    yield from _limits(old, new, path)
    yield from _object(old, new, roots, path, seen)
    yield from _array(old, new, roots, path, seen)


def _values(old: Schema, new: Schema, path: str) -> Iterator[str]:
    old_values = old.get("enum", [old["const"]] if "const" in old else None)
    new_values = new.get("enum", [new["const"]] if "const" in new else None)
    if new_values is None:
        return
    if old_values is None:
        yield f"{path}: any value was accepted, now only an enumeration's"
        return
    for value in old_values:
        if value not in new_values:
            yield f"{path}: the value {value!r} was removed"


def _limits(old: Schema, new: Schema, path: str) -> Iterator[str]:
    for name in _LOWER_LIMITS:
        if name in new and (name not in old or new[name] > old[name]):
            yield f"{path}: {name} was tightened"
    for name in _UPPER_LIMITS:
        if name in new and (name not in old or new[name] < old[name]):
            yield f"{path}: {name} was tightened"
    for name in ("pattern", "format", "multipleOf"):
        if name in new and new[name] != old.get(name):
            yield f"{path}: {name} was tightened"


def _object(old: Schema, new: Schema, roots: _Roots, path: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    before, after = old.get("properties", {}), new.get("properties", {})
    for name in before:
        if name not in after:
            yield f"{path}.{name}: the field was removed"
        else:
            yield from _breaks(before[name], after[name], roots, f"{path}.{name}", seen)
    for name in new.get("required", []):
        if name not in old.get("required", []):
            yield f"{path}.{name}: the field is newly required"
    for name in old.get("required", []):
        # A reader counts on a field that was always there.
        if name in after and name not in new.get("required", []):
            yield f"{path}.{name}: the field is no longer always there"
    yield from _rest(old.get("additionalProperties", True), new.get("additionalProperties", True), roots, f"{path}[*]", seen)


def _array(old: Schema, new: Schema, roots: _Roots, path: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    if _types(old) != frozenset({"array"}):
        return
    before, after = old.get("prefixItems", []), new.get("prefixItems", [])
    if len(before) != len(after):
        yield f"{path}: the tuple's length changed"
    for index, (one, other) in enumerate(zip(before, after, strict=False)):
        yield from _breaks(one, other, roots, f"{path}[{index}]", seen)
    yield from _rest(old.get("items", True), new.get("items", True), roots, f"{path}[]", seen)


def _rest(old: Schema | bool, new: Schema | bool, roots: _Roots, path: str, seen: frozenset[tuple[str, str]]) -> Iterator[str]:
    """Compare schemas that may also be True (anything) or False (nothing); an empty schema accepts anything."""
    if old is False or new is True or new == {}:
        return
    if old is True or old == {} or new is False:
        yield f"{path}: what is accepted was narrowed"
        return
    yield from _breaks(old, new, roots, path, seen)
