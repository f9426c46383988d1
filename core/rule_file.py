"""A file of rules: YAML to `Rules` with every mistake located, and back; a JSON Schema for editors.

A file says what differs from the built-in rules (`extends: default`, which is also what holds without the key), or all
there is (`extends: nothing`). A rule with the id of a built-in one changes what it names; `enabled: false` takes it out.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import yaml

from core.detection.budget import STREAMS
from core.rule_fields import APP, CANARY, DATASET, FIT, GATE, RULE, Field, Section, unknown_metric
from core.rule_values import BUDGET, FLAG, Named, Report, Schema, choice, number, whole
from core.rule_words import nearest, shown
from core.rules import DEFAULT_RULES, canonical, check_rules
from core.yaml_text import InvalidYaml, Items, Node, Place, Problem, read_yaml
from schemas.messages import AppPolicy, PolicyRule, Rules

SCHEMA_ID: Final = "urn:bellbuoy:rules.v1"
_START: Final = Place(1, 1)
_EXTENDS: Final = choice("default", "nothing")
_BASES: Final = {"default": DEFAULT_RULES, "nothing": Rules()}
_SHARES: Final = Named(number(0), unknown_metric, sorted(STREAMS), "metrics and their weights")
_TOP: Final = Section(
    Rules,
    {
        "delta": Field("delta", number(0, 1, percent=True), "Stated probability, per app, that the reference misleads."),
        "reference_events": Field("reference_events", whole(1), "So many first events of an app become its reference."),
        "shares": Field(
            "shares", _SHARES, "Weights of metrics in the budget beside the others'; those not named keep the built-in one."
        ),
        "kill_switch": Field("kill_switch", FLAG, "No action is asked for or may start, for any app."),
        "canary": Field("canary", CANARY, "How a candidate is tried beside the champion before it replaces it."),
        "dataset": Field("dataset", DATASET, "What a fine-tune is trained on."),
        "gate": Field("gate", GATE, "What a candidate must show before a canary begins."),
        "fit": Field("fit", FIT, "When an app gets topic cells of its own."),
    },
    "the fields of rules",
)
_PARTS: Final = {"canary": CANARY, "dataset": DATASET, "gate": GATE, "fit": FIT}


class _Kept:
    """Keeps a node for later, when what it builds on has been read."""

    def read(self, node: Node, path: str, report: Report) -> Node:  # noqa: ARG002 - a kind's form
        return node

    def plain(self, value: Any) -> Any:
        return value

    def schema(self) -> Schema:
        return {}


_KEPT: Final = _Kept()
_LATER: Final = {"canary": _KEPT, "dataset": _KEPT, "gate": _KEPT, "fit": _KEPT}


class InvalidRules(ValueError):
    """A file that says no rules: every problem with its place, in the file's order."""

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source, self.problems = source, tuple(sorted(problems))
        super().__init__("\n".join(problem.told(source) for problem in self.problems))


def read_rules(text: str, source: str = "rules") -> Rules:
    """The rules that a YAML text says; `source` names it in messages. Raises InvalidRules.

    >>> read_rules("false_pages: 1 per 7d").per_days
    7.0
    >>> try: read_rules("false_pages: 1 per 7d\\nrules: [{id: a, metric: refusl}]", "my.yaml")
    ... except InvalidRules as error: print(error)
    my.yaml:2:25: rules[0].metric: `refusl` is no metric that is watched; did you mean `refusal`?
    """
    try:
        node = read_yaml(text)
    except InvalidYaml as error:
        raise InvalidRules(source, [error.problem]) from None
    if node is None:
        raise InvalidRules(source, [Problem(_START, "", "the file says nothing", "write {} where the built-in rules are meant")])
    report = Report()
    rules = _rules(node, report)
    if not report.problems:
        try:
            check_rules(rules)
        except ValueError as error:
            report.add(node.place, "", str(error), "correct that")
    if report.problems:
        raise InvalidRules(source, report.problems)
    return canonical(rules)


def _rules(root: Node, report: Report) -> Rules:
    if isinstance(root, Items):
        report.add(root.place, "", "this is a list", "rules stand under the key `rules:`")
        return Rules()
    nodes = _TOP_WITHOUT_PARTS.values(
        root, "", report, {"extends": _EXTENDS, "false_pages": BUDGET, **_LATER, "rules": _KEPT, "apps": _KEPT}
    )
    base = _BASES[nodes.pop("extends", "default")]
    apps, listed = nodes.pop("apps", None), nodes.pop("rules", None)
    pages, days = nodes.pop("false_pages", (base.false_pages, base.per_days))
    parts = {
        name: section.read(nodes.pop(name), name, report, getattr(base, name))
        for name, section in _PARTS.items()
        if name in nodes
    }
    rules = msgspec.structs.replace(base, false_pages=pages, per_days=days, **nodes, **parts)
    if listed is not None:
        rules = msgspec.structs.replace(rules, rules=_listed_rules(listed, rules.rules, report))
    if apps is not None:
        rules = msgspec.structs.replace(rules, apps=_apps(apps, rules, report))
    return rules


_TOP_WITHOUT_PARTS: Final = Section(
    Rules, {name: known for name, known in _TOP.fields.items() if name not in _PARTS}, _TOP.wanted
)


def _listed_rules(node: Node, base: Sequence[PolicyRule], report: Report) -> tuple[PolicyRule, ...]:
    rules = {rule.id: rule for rule in base}
    seen: dict[str, int] = {}
    if not isinstance(node, Items):
        report.add(node.place, "rules", "this is no list", "begin each rule with `- id: …`")
        return tuple(rules.values())
    for at, item in enumerate(node.items):
        path = f"rules[{at}]"
        before = report.found
        values = RULE.values(item, path, report, {"enabled": FLAG})
        if report.found > before:
            continue
        id_ = values.get("id")
        if id_ is None:
            report.add(item.place, path, "the rule has no id", "write `id: …`, by which its alerts are known")
        elif id_ in seen:
            report.add(
                item.place, f"{path}.id", f"`{shown(id_)}` stands in line {seen[id_]} already", "give this rule another id"
            )
        elif not values.pop("enabled", True):
            if rules.pop(id_, None) is None:
                report.add(item.place, f"{path}.id", f"there is no rule `{shown(id_)}` to take out", nearest(id_, rules, "rules"))
        elif id_ not in rules and "metric" not in values:
            known = nearest(id_, rules, "built-in rules") if rules else "write `metric: …`"
            report.add(
                item.place, path, f"the new rule `{shown(id_)}` has no metric", f"write `metric: …`; for a built-in rule: {known}"
            )
        else:
            seen[id_] = item.place.line
            if values.get("action") == "none":
                values["action"] = None
            made = msgspec.structs.replace(rules[id_], **values) if id_ in rules else PolicyRule(**values)
            if made.metric in made.inhibited_by:
                report.add(item.place, f"{path}.inhibited_by", "a metric cannot explain itself", "leave it out of the list")
            rules[id_] = made
    return tuple(rules.values())


def _apps(node: Node, rules: Rules, report: Report) -> tuple[AppPolicy, ...]:
    if not isinstance(node, Items):
        report.add(node.place, "apps", "this is no list", "begin each app with `- app: …`")
        return rules.apps
    apps: list[tuple[AppPolicy, int]] = []
    for at, item in enumerate(node.items):
        path = f"apps[{at}]"
        values = _APP_WITHOUT_PARTS.values(item, path, report, _LATER)
        for name, section in _PARTS.items():
            if name in values:
                values[name] = section.read(values[name], f"{path}.{name}", report, getattr(rules, name))
        app = AppPolicy(**values)
        covering = next((line for earlier, line in apps if _covers(earlier, app)), None)
        if covering is not None:
            report.add(
                item.place,
                path,
                f"this never counts: the entry of line {covering} fits the same apps",
                "put the narrower one first",
            )
        apps.append((app, item.place.line))
    own = tuple(app for app, _ in apps)
    return own + tuple(built_in for built_in in rules.apps if not any(_covers(app, built_in) for app in own))


_APP_WITHOUT_PARTS: Final = Section(
    AppPolicy, {name: known for name, known in APP.fields.items() if name not in _PARTS}, APP.wanted
)


def _covers(earlier: AppPolicy, later: AppPolicy) -> bool:
    """Whether the first entry fits whatever the second fits."""
    return earlier.app in (None, later.app) and earlier.environment in (None, later.environment)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_rules(rules: Rules) -> str:
    """Rules as a complete file of rules, which reads as the same rules again.

    >>> read_rules(write_rules(DEFAULT_RULES)) == DEFAULT_RULES
    True
    """
    told: dict[str, Any] = {"extends": "nothing", "false_pages": BUDGET.plain((rules.false_pages, rules.per_days))}
    told |= {name: value for name, value in _TOP.plain(rules).items() if name != "shares" or value}
    told["rules"] = [RULE.plain(rule, full=False) for rule in rules.rules]
    told["apps"] = [APP.plain(app, full=False) for app in rules.apps]
    return yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=120)


def rules_schema() -> Schema:
    """JSON Schema (2020-12) of a file of rules, by which an editor completes and checks it."""
    schema = _TOP.schema()
    schema["properties"] = {
        "extends": _EXTENDS.schema()
        | {
            "description": "default: what the file does not say is as built in; nothing: the file says all.",
            "default": "default",
        },
        "false_pages": BUDGET.schema()
        | {"description": "False pages that are bearable, per app: 1 per 30d.", "default": "1 per 30d"},
        **schema["properties"],
        "rules": {"type": "array", "description": "What follows an alert on a metric.", "items": _rule_schema()},
        "apps": {
            "type": "array",
            "description": "What differs for some apps; the first that fits counts.",
            "items": APP.schema(),
        },
    }
    schema["properties"]["shares"] |= {
        "additionalProperties": False,
    }
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": SCHEMA_ID, "title": "Rules of Bellbuoy"}
    return head | schema


def _rule_schema() -> Schema:
    schema = RULE.schema()
    enabled = FLAG.schema() | {"description": "false takes a built-in rule out.", "default": True}
    return schema | {"required": ["id"], "properties": schema["properties"] | {"enabled": enabled}}
