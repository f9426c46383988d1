"""Files of rules: what they say is read exactly, and each mistake is told with its place and its remedy."""

import itertools

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.detection.budget import STREAMS, stream_weights
from core.rule_file import InvalidRules, read_rules, rules_schema, write_rules
from core.rule_words import budget_of, budget_words, duration_of, seconds_of
from core.rules import DEFAULT_RULES, app_policy, canonical, check_rules
from core.yaml_text import MAX_BYTES
from schemas.codec import digest
from schemas.messages import AppPolicy, CanaryRules, DatasetRules, FitRules, GateRules, PolicyRule, Rules
from tests.contract.json_schema import Schema


def told(text: str) -> list[str]:
    """The problems of a text, a line each."""
    with pytest.raises(InvalidRules) as caught:
        read_rules(text, "f")
    return str(caught.value).splitlines()


def rule(text: str, id_: str) -> PolicyRule:
    """A rule of the file `rules: <text>`."""
    return next(r for r in read_rules(f"rules: {text}").rules if r.id == id_)


def test_a_file_that_says_nothing_but_a_table_means_the_built_in_rules() -> None:
    assert read_rules("{}") == DEFAULT_RULES
    assert read_rules("extends: default") == DEFAULT_RULES
    assert digest(read_rules("{}")) == digest(DEFAULT_RULES)


def test_everything_that_the_contract_knows_can_be_said() -> None:
    text = """
    extends: nothing
    false_pages: 2 per 12h
    delta: 1%
    reference_events: 800
    kill_switch: true
    shares: {refusal: 2, error: 0.5}
    canary: {weights: [1%, 12.5%], step: 1m, step_units: 7, alpha: 0.02, margin: 2, tolerable: 0, max: 2h}
    dataset: {days: 3, min_rows: 4, max_rows: 5, per_actor: 6, per_cluster: 7, held_out: 50%}
    gate: {min_questions: 9, confidence: 90%, correct: 1}
    fit: {events: 0}
    rules:
      - {id: a, metric: refusal, action: rollback, mode: approve, pending: 5s, inhibited_by: [error, topic.mix],
         cooldown: 2h, ttl: 3h, remind: 1d}
    apps:
      - {app: desk, environment: staging, mode: auto, canary: {step: 9s}, dataset: {days: 1}, gate: {correct: 0.5}, fit: {events: 400}}
    """
    canary = CanaryRules(weights=(100, 1_250), step_s=60, step_units=7, alpha=0.02, margin=2.0, tolerable=0.0, max_s=7_200)
    dataset = DatasetRules(days=3, min_rows=4, max_rows=5, per_actor=6, per_cluster=7, held_out=0.5)
    gate = GateRules(min_questions=9, confidence=0.9, correct=1.0)
    assert read_rules(text) == Rules(
        false_pages=2,
        per_days=0.5,
        delta=0.01,
        reference_events=800,
        kill_switch=True,
        shares={"error": 0.5, "refusal": 2.0},
        canary=canary,
        dataset=dataset,
        gate=gate,
        fit=FitRules(events=0),
        rules=(
            PolicyRule(
                id="a", metric="refusal", action="rollback", mode="approve", pending_s=5, inhibited_by=("error", "topic.mix"),
                cooldown_s=7_200, ttl_s=10_800, remind_s=86_400,
            ),
        ),
        apps=(
            AppPolicy(
                app="desk", environment="staging", mode="auto", canary=msgspec.structs.replace(canary, step_s=9),
                dataset=msgspec.structs.replace(dataset, days=1), gate=msgspec.structs.replace(gate, correct=0.5),
                fit=FitRules(events=400),
            ),
        ),
    )  # fmt: skip


def test_no_field_of_the_contract_is_left_out_of_the_file() -> None:
    schema = rules_schema()["properties"]
    named = {"per_days": "false_pages", "step_s": "step", "max_s": "max", "cooldown_s": "cooldown", "ttl_s": "ttl",
             "pending_s": "pending", "remind_s": "remind"}  # fmt: skip
    for type_, keys in (
        (Rules, schema),
        (CanaryRules, schema["canary"]["properties"]),
        (PolicyRule, schema["rules"]["items"]["properties"]),
        (AppPolicy, schema["apps"]["items"]["properties"]),
    ):
        assert {named.get(f.name, f.name) for f in msgspec.structs.fields(type_)} <= set(keys)


def test_a_rule_with_a_built_in_id_changes_only_what_it_names() -> None:
    built_in = next(r for r in DEFAULT_RULES.rules if r.id == "prompt-pii")
    assert rule("[{id: prompt-pii, cooldown: 2h}]", "prompt-pii") == msgspec.structs.replace(built_in, cooldown_s=7_200)
    assert len(read_rules("rules: [{id: prompt-pii, cooldown: 2h}]").rules) == len(DEFAULT_RULES.rules)


def test_a_built_in_rule_can_be_taken_out_and_a_new_one_added() -> None:
    ids = [r.id for r in read_rules("rules: [{id: latency, enabled: false}, {id: slow, metric: latency}]").rules]
    assert ids == [r.id for r in DEFAULT_RULES.rules if r.id != "latency"] + ["slow"]


def test_the_action_of_a_built_in_rule_can_be_taken_away() -> None:
    assert rule("[{id: refusal-on-version, action: none}]", "refusal-on-version").action is None


def test_an_apps_canary_is_as_for_all_apps_in_what_it_does_not_say() -> None:
    rules = read_rules("canary: {step: 1m}\napps: [{app: desk, canary: {max: 1h}}]")
    assert app_policy(rules, "desk", "production").canary == CanaryRules(step_s=60, max_s=3_600)


def test_a_files_apps_come_before_the_built_in_ones() -> None:
    rules = read_rules("apps: [{app: desk, environment: demo, mode: suggest}]")
    assert app_policy(rules, "desk", "demo").mode == "suggest"
    assert app_policy(rules, "shop", "demo").mode == "auto"


def test_a_built_in_app_that_a_files_entry_covers_is_left_out() -> None:
    assert [a.mode for a in read_rules("apps: [{mode: approve}]").apps] == ["approve"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "f:1:1: the file says nothing; write {} where the built-in rules are meant"),
        ("- a", "f:1:1: this is a list; rules stand under the key `rules:`"),
        ("hello", "f:1:1: this is no table of keys and values; write the fields of rules"),
        ("false_pags: 1", "f:1:1: false_pags: no field is called so; did you mean `false_pages`?"),
        ("false_pages: 5", "f:1:14: false_pages: `5` is no budget; write how many false pages are bearable in which time: 1 per 30d"),
        ("false_pages: 0 per 30d", "f:1:14: false_pages: `0 per 30d` leaves no false page; no detector keeps that promise: write at least 1, in a time longer than nothing"),
        ("delta: 2", "f:1:8: delta: 2 lies outside; write a number above 0 and below 1, or a percentage"),
        ("delta: .nan", "f:1:8: delta: `.nan` is no number; write a number above 0 and below 1, or a percentage"),
        ("delta:", "f:1:7: delta: there is no value; write a number above 0 and below 1, or a percentage"),
        ("delta: [1]", "f:1:8: delta: a list stands here; write a number above 0 and below 1, or a percentage"),
        ("kill_switch: yes", "f:1:14: kill_switch: `yes` is neither true nor false; write true or false"),
        ("delta: 1%\ndelta: 2%", "f:2:1: delta: this key stands in line 1 already; keep one of the two"),
        ("canary: {weights: [5%, 1%]}", "f:1:19: canary.weights: the values do not rise from one to the next; write the candidate's share step by step: [1%, 5%, 25%]"),
        ("canary: {weights: [5]}", "f:1:20: canary.weights[0]: `5` is no share in percent; write 1%, 5% or 25%"),
        ("canary:\n  step: 600", "f:2:9: canary.step: `600` is no duration; write 600s, or in other units (30s, 15m, 2h, 30d)"),
        ("fit: {events: 3}", "f:1:15: fit.events: 3 lies outside; write a whole number from 400 to 40,000, or 0"),
        ("shares: {refusl: 1}", "f:1:10: shares.refusl: nothing is called so; did you mean `refusal`?"),
        ("rules:\n  - id: a\n    metric: refusl", "f:3:13: rules[0].metric: `refusl` is no metric that is watched; did you mean `refusal`?"),
        ("rules: [{id: a, metric: error, mode: aut}]", "f:1:38: rules[0].mode: `aut` is not to be chosen here; did you mean `auto`?"),
        ("rules: [{metric: error}]", "f:1:9: rules[0]: the rule has no id; write `id: …`, by which its alerts are known"),
        ("rules: [{id: erorr}]", "f:1:9: rules[0]: the new rule `erorr` has no metric; write `metric: …`; for a built-in rule: did you mean `error`?"),
        ("rules: [{id: a, metric: error}, {id: a, metric: cost}]", "f:1:33: rules[1].id: `a` stands in line 1 already; give this rule another id"),
        ("rules: [{id: a, metric: error, inhibited_by: [error]}]", "f:1:9: rules[0].inhibited_by: a metric cannot explain itself; leave it out of the list"),
        ("rules: [{id: latencie, enabled: false}]", "f:1:9: rules[0].id: there is no rule `latencie` to take out; did you mean `latency`?"),
        ("apps: [{mode: auto}, {app: x}]", "f:1:22: apps[1]: this never counts: the entry of line 1 fits the same apps; put the narrower one first"),
        ("apps: [{app: ''}]", "f:1:14: apps[0].app: `` is no name; write 1 to 200 printable characters"),
        ("? {a: b}\n: c", "f:1:3: a key must be a name; write `name: value`"),
        ("a: {} b", "f:1:7: expected <block end>, but found '<scalar>' while parsing a block mapping; mend the YAML"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place_its_field_and_what_would_be_right(text: str, problem: str) -> None:
    assert told(text) == [problem]


def test_all_mistakes_are_told_at_once_in_the_order_of_the_file() -> None:
    lines = told("delta: 3\nrules:\n  - {id: a, metric: x}\nfit: {events: 1}\nnonsense: 1")
    assert [line.split(":")[1] for line in lines] == ["1", "3", "4", "5"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &x [1]\nb: [*x, *x]", "f:1:4: anchors and aliases are not read"),
        ("a: *x", "f:1:4: anchors and aliases are not read"),
        ("delta: !!python/object/apply:os.system ['ls']", "f:1:8: the tag tag:yaml.org,2002:python/object/apply:o"),
        ("delta: !!float 0.1", "f:1:8: the tag tag:yaml.org,2002:float is not read"),
        ("<<: {delta: 0.1}", "f:1:1: <<: no field is called so"),
        ("[" * 100_000, "f:1:11: nested more than 10 deep"),
        ("{a: " * 50_000, "nested more than 10 deep"),
        ("delta: 0.1\n---\ndelta: 0.1", "f:2:1: a second document begins"),
        ("delta: 0.1\x00", "f:1:11: the character U+0000"),
        ("\n\nde\ud800", "f:3:3: the character U+D800"),
        ("x" * (MAX_BYTES + 1), f"the text has {MAX_BYTES + 1:,} bytes"),
        ("delta: " + "9" * 100_000, "is no number"),
        ("a" * 1_000 + ": 1", "a…: no field is called so"),
        ("'\x1b[31mred': 1", "the character U+001B"),
        ('extends: "\\UFFFFFFFF"', "f:1:1: a character or a number is none that YAML has"),
        ("%YAML 1." + "9" * 5_000 + "\n---\n{}", "f:1:1: a character or a number is none that YAML has"),
        ("%YAML 3.0\n---\n{}", "f:1:1: found incompatible YAML document"),
    ],
)  # fmt: skip
def test_hostile_yaml_is_refused_with_a_short_message(text: str, words: str) -> None:
    (line,) = told(text)
    assert words in line
    assert len(line) < 900


def test_a_bomb_of_aliases_is_refused_before_it_unfolds() -> None:
    levels = "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))
    assert told(f"a0: &a0 [x]\n{levels}") == ["f:1:5: anchors and aliases are not read; write the value out"]


def test_of_very_many_mistakes_the_first_fifty_are_told() -> None:
    assert len(told("\n".join(f"k{n}: 1" for n in range(10_000)))) == 50


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        rules = read_rules(text)
    except InvalidRules:
        return
    check_rules(rules)


def test_the_default_rules_survive_being_written_with_their_digest() -> None:
    assert digest(read_rules(write_rules(DEFAULT_RULES))) == digest(DEFAULT_RULES)


SECONDS = st.integers(0, 10**6)
NAMES = st.sampled_from(sorted(STREAMS))
TEXT = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zs", "Zl", "Zp", "Cf", "Co", "Cn")), min_size=1, max_size=20
)
SHARE = st.floats(0.001, 0.499)
CANARIES = st.builds(
    CanaryRules,
    weights=st.sets(st.integers(1, 9_999), min_size=1, max_size=4).map(lambda w: tuple(sorted(w))),
    step_s=SECONDS, step_units=SECONDS, alpha=SHARE, margin=st.floats(1.001, 100), tolerable=SHARE, max_s=SECONDS,
)  # fmt: skip
FITS = st.builds(FitRules, events=st.one_of(st.just(0), st.integers(400, 40_000)))
RULES = st.builds(
    Rules,
    false_pages=st.integers(1, 999),
    per_days=st.floats(1e-5, 1e4),
    delta=SHARE,
    reference_events=st.integers(1, 10**6),
    kill_switch=st.booleans(),
    shares=st.dictionaries(NAMES, st.floats(1e-6, 1e6), max_size=3).map(lambda d: dict(sorted(d.items()))),
    canary=CANARIES,
    fit=FITS,
    rules=st.lists(
        st.builds(
            PolicyRule, id=TEXT, metric=st.just("refusal"), action=st.sampled_from([None, "retrain", "rollback"]),
            mode=st.sampled_from(["suggest", "approve", "auto"]), cooldown_s=SECONDS, ttl_s=SECONDS, pending_s=SECONDS, remind_s=SECONDS,
            inhibited_by=st.lists(NAMES.filter(lambda n: n != "refusal"), max_size=3).map(tuple),
        ),
        max_size=3, unique_by=lambda r: r.id,
    ).map(tuple),
    apps=st.lists(st.builds(AppPolicy, app=TEXT, canary=st.none() | CANARIES, fit=st.none() | FITS), max_size=3, unique_by=lambda a: a.app).map(tuple),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(RULES)
def test_any_rules_survive_being_written(rules: Rules) -> None:
    again = read_rules(write_rules(rules))
    assert again == rules
    assert digest(again) == digest(canonical(rules))


@given(st.integers(0, 10**9))
def test_a_duration_is_read_as_it_was_written(seconds: int) -> None:
    assert seconds_of(duration_of(seconds)) == seconds


@given(st.integers(1, 999_999), st.floats(1e-9, 1e9))
def test_a_budget_is_read_as_it_was_written(pages: int, days: float) -> None:
    assert budget_of(budget_words(pages, days)) == (pages, days)


def test_weights_of_the_budget_sum_to_one_and_keep_the_others_in_proportion() -> None:
    before, after = stream_weights(Rules()), stream_weights(Rules(shares={"refusal": 5.0}))
    assert sum(after.values()) == pytest.approx(1.0)
    others = sorted(STREAMS.keys() - {"refusal"})
    assert all(after[a] / after[b] == pytest.approx(before[a] / before[b]) for a, b in itertools.pairwise(others))


def test_the_schema_describes_every_field_and_allows_no_other() -> None:
    def walk(schema: Schema, path: str) -> None:
        if "properties" in schema:
            assert schema["additionalProperties"] is False, path
            for name, field in schema["properties"].items():
                if path.rpartition(".")[2] != "shares":
                    assert field.get("description"), f"{path}.{name}"
                walk(field, f"{path}.{name}")
        if "items" in schema:
            walk(schema["items"], f"{path}[]")

    walk(rules_schema(), "$")


def test_mistakes_beyond_the_most_that_are_told_do_no_harm() -> None:
    many = "\n".join(f"  - {{id: r{n}, metric: x}}" for n in range(60))
    assert len(told(f"rules:\n{many}\ncanary: {{weights: [bad, 5%]}}")) == 50


def test_feedback_under_other_names_is_refused_until_it_is_watched() -> None:
    assert told("shares: {feedback.rating: 0.5}") == [
        "f:1:10: shares.feedback.rating: nothing is called so; of feedback only `thumbs.down` is watched yet"
    ]
