"""Every message that travels on a topic, as msgspec structs; `schemas/json/` is generated from here.

Times named `*_time` or `window` are integer milliseconds since 1970 UTC of the broker's append time, unless the
docstring says that they are the client's. All counts are integers. Scores are fixed-point with `FIXED_ONE` = 1.
"""

from typing import Any, Final, Literal

import msgspec

WINDOW_MS: Final = 5_000
FIXED_ONE: Final = 65_535
WEIGHT_ONE: Final = 10_000
"""A route's weights are in ten-thousandths of the units of assignment."""

Kind = Literal["chat", "embeddings", "retrieval", "tool", "agent", "workflow"]
Part = Literal["whole", "span", "content"]
FeedbackKind = Literal["explicit", "implicit", "evaluator"]
Mode = Literal["suggest", "approve", "auto"]
Lane = str  # "live", "import" or "backfill:<run>"
Scalar = str | int | float | bool


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Base of all message values.

    `extra` keeps fields that this code does not know, as undecoded JSON, so that a reader that writes a message on
    loses nothing of a newer minor version. It is not part of the JSON; `schemas.codec` fills it and writes it out.
    """

    schema_version: str = "1.0"
    extra: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict, name="__extra__")


# --- llm.interactions, llm.feedback -------------------------------------------------------------------------------


class ContentPart(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One part of a message. Only `text` is scored; any other type keeps its size (bytes), sha256 and media type."""

    type: str = "text"
    text: str | None = None
    media_type: str | None = None
    size: int | None = None
    sha256: str | None = None


class ChatMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A chat message; a plain string as content means one text part."""

    role: str
    content: str | list[ContentPart] = ""
    name: str | None = None


class ToolCall(msgspec.Struct, kw_only=True, omit_defaults=True):
    name: str
    id: str | None = None
    arguments: str = ""
    result: str | None = None
    error: str | None = None


class Document(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One retrieved document."""

    text: str = ""
    id: str | None = None
    score: float | None = None


class ResponseFormat(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The form in which the request wants the answer: `json_object`, or `json_schema` with `schema` as JSON text."""

    type: str = "text"
    schema: str | None = None


class Interaction(Message):
    """One call of a model (or a step around it) as the application saw it. `time` is the client's, RFC 3339."""

    id: str
    app: str
    time: str | None = None
    environment: str = "production"
    kind: Kind = "chat"
    part: Part = "whole"
    version: str | None = None
    """Registry version (the whole call configuration) that the client or gateway names."""
    provider: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None
    arm: str | None = None
    route_epoch: int | None = None
    turn: int | None = None
    conversation: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    traceparent: str | None = None
    user: str | None = None
    """Hashed by the sender or by the collector."""
    input: list[ChatMessage] = []
    output: list[ChatMessage] = []
    tool_calls: list[ToolCall] = []
    documents: list[Document] = []
    finish_reasons: list[str] = []
    response_format: ResponseFormat | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_ms: float | None = None
    time_to_first_chunk_ms: float | None = None
    cost_usd: float | None = None
    error_type: str | None = None
    attributes: dict[str, Scalar] = {}
    producer_instance: str | None = None
    """Instance and sequence are stamped by collector and gateway, so that a gap before Kafka is visible."""
    producer_sequence: int | None = None


class Feedback(Message):
    """One act of feedback. `time` is the client's, RFC 3339; `score` in [0, 1]."""

    id: str
    interaction_id: str
    name: str
    kind: FeedbackKind = "explicit"
    time: str | None = None
    app: str | None = None
    environment: str | None = None
    version: str | None = None
    score: float | None = None
    label: str | None = None
    comment: str | None = None
    correction: str | None = None
    actor: str | None = None
    """Hashed by the sender or by the collector."""
    receipt: str | None = None
    traceparent: str | None = None
    attributes: dict[str, Scalar] = {}
    producer_instance: str | None = None
    producer_sequence: int | None = None


class Tick(Message):
    """Appended to a partition that has no record of a new window yet, so that its block closes."""

    window: int


class Receipt(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a signed receipt token says about the interaction that it was issued for."""

    interaction_id: str
    app: str
    environment: str
    version: str | None = None
    turn: int | None = None
    route_epoch: int | None = None
    sampled: bool = False
    """Whether it is the one later turn of its conversation that detection counts."""


# --- llm.scored ---------------------------------------------------------------------------------------------------


class Coordinates(msgspec.Struct, kw_only=True, frozen=True, order=True):
    """The identity that Kafka gave a record."""

    topic: str
    topic_id: str
    partition: int
    offset: int


class Reason(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Why a score fired: a rule or a feature, and the span [start, end) in characters of the redacted text."""

    rule: str
    text: Literal["prompt", "response"] = "response"
    start: int = 0
    end: int = 0


class Score(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One scorer's outcome. `value` is fixed-point for rates, else the measured integer; `label` names a category."""

    scorer: str
    """`name@version`."""
    value: int = 0
    label: str | None = None
    outcome: Literal["ok", "error"] = "ok"
    reasons: list[Reason] = []


class ScoredInteraction(Message):
    """An interaction as everything but the raw topic sees it: redacted text, scores, reasons."""

    coordinates: Coordinates
    append_time: int
    config: str
    id: str
    app: str
    version: str
    environment: str = "production"
    time: str | None = None
    kind: Kind = "chat"
    part: Part = "whole"
    provider: str | None = None
    request_model: str | None = None
    response_model: str | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None
    arm: str | None = None
    route_epoch: int | None = None
    turn: int | None = None
    conversation: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    parent_id: str | None = None
    user: str | None = None
    prompt: str = ""
    """Redacted text of the last user message."""
    response: str = ""
    """Redacted text of the output messages."""
    messages: list[ChatMessage] = []
    """All messages, redacted; left out when prompt and response already say everything."""
    tool_calls: list[ToolCall] = []
    documents: list[Document] = []
    finish_reasons: list[str] = []
    input_tokens: int | None = None
    output_tokens: int | None = None
    latency_us: int | None = None
    first_chunk_us: int | None = None
    cost_microusd: int | None = None
    error_type: str | None = None
    attributes: dict[str, Scalar] = {}
    parts_not_scored: int = 0
    text_truncated: bool = False
    scores: dict[str, Score] = {}


class ScoredFeedback(Message):
    """A feedback act, redacted and attributed: by its receipt, by what the client stated, or to nothing."""

    coordinates: Coordinates
    append_time: int
    config: str
    id: str
    interaction_id: str
    name: str
    kind: FeedbackKind = "explicit"
    attribution: Literal["receipt", "stated", "none"] = "none"
    time: str | None = None
    app: str | None = None
    environment: str | None = None
    version: str | None = None
    turn: int | None = None
    route_epoch: int | None = None
    score: int | None = None
    label: str | None = None
    comment: str | None = None
    correction: str | None = None
    actor: str | None = None
    attributes: dict[str, Scalar] = {}
    receipt_error: str | None = None
    scores: dict[str, Score] = {}


# --- llm.summaries ------------------------------------------------------------------------------------------------


class LedgerCounts(msgspec.Struct, kw_only=True):
    """Every offset of a block is in exactly one of scored, dead, tick, control; `poison` is a part of `dead`."""

    scored: int = 0
    dead: int = 0
    poison: int = 0
    tick: int = 0
    control: int = 0


class BlockHeader(msgspec.Struct, kw_only=True):
    """Which offsets [start, end) of which partition were given in window [window, window + 5 s), and what became of them.

    `config` is the digest of the config that scored the block. `dead_reasons` counts dead letters by reason code.
    """

    topic: str
    topic_id: str
    partition: int
    window: int
    start: int
    end: int
    config: str
    counts: LedgerCounts
    dead_reasons: dict[str, int] = {}


class Counts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Counts of some of a group's records, as in `Group`."""

    n: int = 0
    acts: int = 0
    bins: dict[str, list[tuple[int, int]]] = {}
    names: dict[str, list[tuple[str, int]]] = {}


class Group(msgspec.Struct, kw_only=True):
    """Counts of one (app, environment, version): (bin, count) pairs and (name, count) pairs by `metric@version`.

    `n` is the number of interactions, `acts` of feedback acts. Everything is sorted; no count is zero.
    """

    app: str
    environment: str
    version: str
    n: int = 0
    acts: int = 0
    bins: dict[str, list[tuple[int, int]]] = {}
    names: dict[str, list[tuple[str, int]]] = {}
    first: Counts | msgspec.UnsetType = msgspec.UNSET
    """Of first turns alone, one per conversation: what detection judges. Left out: all that is counted are first turns."""
    later: Counts | msgspec.UnsetType = msgspec.UNSET
    """Of one later turn per conversation, the one that a hash of the conversation names."""


class Cohort(msgspec.Struct, kw_only=True):
    """Counts of what one version answered under one route epoch: a canary is judged by these.

    `n` counts interactions with turn = 1 (one outcome per unit of assignment), `acts` feedback acts whose receipt names the
    epoch. Metrics as in `Group.bins`; sorted, no count is zero.
    """

    app: str
    environment: str
    version: str
    route_epoch: int
    n: int = 0
    acts: int = 0
    bins: dict[str, list[tuple[int, int]]] = {}


class BlockSummary(Message):
    """One block's counts for one shard, part `part` of `parts` (from 1); every part carries the block's header."""

    header: BlockHeader
    shard: int
    part: int = 1
    parts: int = 1
    groups: list[Group] = []
    cohorts: list[Cohort] = []


# --- llm.deadletter -----------------------------------------------------------------------------------------------


class DeadLetter(Message):
    """A record that could not be read or scored: why, where, how large; no bytes of the payload."""

    coordinates: Coordinates
    append_time: int
    code: str
    """Short reason code, from a fixed list: counted in headers."""
    reason: str
    """What was wrong, in words; quotes no payload."""
    field: str | None = None
    size: int = 0
    sha256: str = ""


# --- llm.config ---------------------------------------------------------------------------------------------------


class PolicyRule(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """When an alert on `metric` fires, ask for `action` (if any) in `mode`."""

    id: str
    metric: str
    action: Literal["retrain", "rollback"] | None = None
    mode: Mode = "suggest"
    cooldown_s: int = 3_600
    ttl_s: int = 3_600
    pending_s: int = 0
    """How long the detection must hold before the alert fires, so that a cause that explains it can inhibit it."""
    inhibited_by: tuple[str, ...] = ()
    """Metrics whose firing alert on the same app explains this one."""
    remind_s: int = 86_400
    """An alert that was acknowledged and still fires pages again after so long; 0: never."""


class CanaryRules(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How a candidate is tried beside the champion before it replaces it."""

    weights: tuple[int, ...] = (100, 500, 2_500)
    """The candidate's share step by step, in ten-thousandths of the units; after the last step come all of them."""
    step_s: int = 600
    """How long a step lasts at least."""
    step_units: int = 200
    """How many units the candidate answers at least in a step."""
    alpha: float = 0.01
    """Probability of ever stopping a harmless candidate; and, for each guardrail, of promoting one beyond the margin."""
    margin: float = 1.5
    """Odds ratio of failures, candidate to champion, that counts as worse."""
    tolerable: float = 0.005
    """A share of failures below which a guardrail passes whatever the champion's is."""
    max_s: int = 86_400
    """A candidate without evidence by then is taken back."""


class DatasetRules(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a fine-tune is trained on."""

    days: int = 14
    min_rows: int = 10
    max_rows: int = 10_000
    per_actor: int = 20
    """Rows that one actor may contribute."""
    per_cluster: int = 50
    """Rows of near-equal questions."""
    held_out: float = 0.2
    """Share of the question clusters that is kept for the gate and never trained on."""


class GateRules(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a candidate must show before a canary begins."""

    min_questions: int = 30
    confidence: float = 0.95
    correct: float = 0.6
    """Token F1 with the reference answer from which an answer counts as correct."""


class FitRules(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """When an app gets topic cells of its own, without being asked and only once."""

    events: int = 10_000
    """Scored prompts that it takes: the first half makes the cells, the second begins the reference. 0: never."""


class AppPolicy(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What differs for some apps; None means any app or environment. The first that fits counts."""

    app: str | None = None
    environment: str | None = None
    mode: Mode | None = None
    """Replaces the mode of every rule."""
    canary: CanaryRules | None = None
    dataset: DatasetRules | None = None
    gate: GateRules | None = None
    fit: FitRules | None = None


class Rules(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The policy: the false-alarm budget in words a person can hold, and what follows an alert."""

    false_pages: int = 1
    per_days: float = 30.0
    delta: float = 0.05
    """Stated probability, per app, that the reference misleads."""
    reference_events: int = 5_000
    rules: tuple[PolicyRule, ...] = ()
    kill_switch: bool = False
    shares: dict[str, float] = {}
    """Stream → its weight in the budget beside the others', where that is not the built-in one."""
    canary: CanaryRules = CanaryRules()
    dataset: DatasetRules = DatasetRules()
    gate: GateRules = GateRules()
    fit: FitRules = FitRules()
    apps: tuple[AppPolicy, ...] = ()


class AdaptedHead(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """An app's own correction of one learned score, made by `bellbuoy adapt` and applied to that app alone.

    A corrected score's scorer is `name@(version × 1,000 + correction's version)`, so that detection takes the new version for
    what it is. A rollback is a further version with the weights of an older one, or with none: the frozen score.
    """

    app: str
    environment: str
    name: str
    """The metric: `prompt.safety.unsafe`."""
    version: int
    """Counts from 1 and never falls."""
    heads: str = ""
    """Digest of the frozen heads that it corrects; with other heads it does nothing."""
    languages: tuple[str, ...] = ()
    """Languages that the labels were in: there the score fires although the frozen heads do not cover them."""
    weights: bytes = b""
    restores: int = 0
    """The version whose weights a rollback brought back; 0 where it is none."""


class RedactionRule(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What becomes of personal data and secrets of a kind; None means any app, environment or kind. The first that fits counts.

    mask: `[EMAIL]` stands in its place, which is also what happens without a rule. hash: `[EMAIL:<token>]` with a keyed hash,
    so that equal values of one app can be joined; where the key is missing it is masked. drop: nothing of the text that holds
    it is kept, `[DROPPED]` stands for the whole field (one message, one part of it, one comment, …).
    """

    app: str | None = None
    environment: str | None = None
    kind: str | None = None
    action: Literal["mask", "hash", "drop"] = "mask"
    key: str | None = None
    """Id of the key of a hash; the key itself is never part of a config."""


class Price(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What tokens of a model cost: micro-USD per million of them (5 USD are 5,000,000), as of `date` (ISO 8601).

    `model` is the beginning of the name, up to a date or a release number; lower case.
    """

    model: str
    input: int
    output: int
    date: str = ""


class OwnCells(msgspec.Struct, kw_only=True, frozen=True):
    """Topic cells of one app, fitted to its own prompts.

    `topics` and `novelty` are counts by bin of prompts that the cells were not made from: the reference begins with them.
    """

    app: str
    environment: str
    version: int
    """1 for the first fit, then rising; part of the identity of what is scored with these cells."""
    embedding: str
    """sha256 of the embedding table that the centroids are vectors of."""
    centroids: bytes
    """Cells × dimensions, int8, row by row."""
    names: tuple[str, ...]
    """By cell: words that tell it from the others."""
    edges: tuple[int, ...]
    """Distances to the nearest centroid (1 - cosine, fixed-point) between the bins of novelty, rising."""
    events: int
    """Prompts that it was fitted to, those of the reference included."""
    topics: tuple[int, ...] = ()
    novelty: tuple[int, ...] = ()


class Config(Message):
    """Immutable by digest: what scoring and judging depend on."""

    scorers: dict[str, int]
    """Scorer name → version."""
    embedding: str
    """sha256 of the quantised embedding table with its cells."""
    partitions: dict[str, int]
    """Raw topic → number of partitions in the closing set."""
    shards: int
    admitted: list[tuple[str, str]] = []
    """(app, environment) pairs that come first where a block must bound its pairs."""
    receipt_keys: dict[str, str] = {}
    """Key id → Ed25519 public key, base64."""
    rules: Rules = Rules()
    redaction: list[RedactionRule] = []
    max_text_bytes: int = 32_768
    max_pairs_per_block: int = 256
    heads: str = ""
    """sha256 of the table of learned heads."""
    adapted: list[AdaptedHead] = []
    """One entry per (app, environment, name)."""
    prices: tuple[Price, ...] = ()
    """They come before the built-in table of prices."""
    cells: list[OwnCells] = []
    """Topic cells of apps that have their own; the others are scored with the embedding's."""


class Activation(Message):
    """From the first block whose window starts ≥ append time + 30 s, `config` holds; the first one from the beginning."""

    id: str
    config: str
    actor: str
    reason: str


class Poison(Message):
    """A record that killed its scorer: dead-lettered by every runtime, whatever its time."""

    coordinates: Coordinates
    reason: str
    actor: str = "processor --careful"


# --- llm.commands -------------------------------------------------------------------------------------------------

CommandKind = Literal[
    "acknowledge",
    "silence",
    "unsilence",
    "approve",
    "reject",
    "roll_back",
    "rebaseline",
    "exclude_partition",
    "include_partition",
    "kill_switch",
    "deploy_marker",
    "release",
    "ledger_missing",
]


class Command(Message):
    """What people, CI and tools say. `arguments` depend on the kind; see docs/architecture.md."""

    id: str
    kind: CommandKind
    actor: str
    reason: str = ""
    app: str | None = None
    environment: str | None = None
    alert: str | None = None
    action: str | None = None
    arguments: dict[str, Scalar] = {}


# --- llm.windows --------------------------------------------------------------------------------------------------


class WindowRow(msgspec.Struct, kw_only=True):
    """Final counts of one metric in one window of `resolution` seconds, summed over partitions.

    `bins`, `counts` are parallel and sorted by bin; for named categories `names` is parallel to `counts` instead.
    `n` is the number of interactions (or acts) of the (app, environment, version) in the window.
    """

    app: str
    environment: str
    version: str
    metric: str
    resolution: int
    window: int
    n: int
    bins: list[int] = []
    names: list[str] = []
    counts: list[int] = []


class WindowRows(Message):
    """Window rows that became final in one transaction, part `part` of `parts`."""

    shard: int
    rows: list[WindowRow]
    part: int = 1
    parts: int = 1


class Cut(Message):
    """What one transaction folded: windows [first_window, last_window], with control records below the given offsets.

    A command, step or config counts in the first window of the first cut that includes it. While `window <=
    catch_up_until` alert states move, but nothing is paged or requested.
    """

    shard: int
    first_window: int
    last_window: int
    windows: int
    """How many windows of the range had a block."""
    summaries_end: int
    commands_end: int
    actions_end: int
    config_end: int
    catch_up_until: int | None = None


class Effect(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Rate before (the reference) and since the estimated onset, with a 95 % interval given that onset."""

    before: float
    after: float
    low: float
    high: float
    events: int
    """Events since the estimated onset."""


class BinCounts(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The integers that a bin's evidence is made of: with x = `hits` of n = `events` since `onset`, p = `band` and
    q = expit(logit(p) +- `tilt`), `log_likelihood` = x ln(q/p) + (n - x) ln((1 - q)/(1 - p))."""

    up: bool
    """Whether more than `band` is harmful here, or less."""
    onset: int
    """Start (ms) of the window that is this bin's most likely first changed one."""
    hits: int
    events: int
    band: float
    """The edge of what the reference's own sampling error allows."""
    tilt: float
    """The change in log-odds that fits best of those that are looked for."""
    log_likelihood: float
    grown: bool = False
    """Whether `band` is of the reference as it has grown, or of the first one."""
    reference_hits: int | None = None
    reference_events: int | None = None


class Contribution(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One bin's share of the evidence at the alarm: its log-likelihood ratio since its own onset."""

    bin: str
    name: str
    share: float
    before: float
    after: float
    counts: BinCounts | None = None


class Detection(Message):
    """A detector's alarm: what moved, since when, by how much, and which bins carry it."""

    id: str
    shard: int
    app: str
    environment: str
    metric: str
    slice: str
    """`all`, or `version=<version>`."""
    window: int
    """Start of the window in which the detector fired."""
    onset: int
    """Start of the window that is estimated to be the first changed one."""
    statistic: float
    threshold: float
    effect: Effect
    contributions: list[Contribution] = []
    config: str = ""


# --- llm.alerts, llm.actions --------------------------------------------------------------------------------------

AlertState = Literal["pending", "firing", "acknowledged", "silenced", "inhibited", "resolved"]
ActionKind = Literal["retrain", "evaluate", "canary", "rollback"]
"""retrain: dataset, fine-tune, gate; evaluate: the gate alone; both end with a candidate. canary: from candidate to champion."""
ActionState = Literal[
    "suggested",
    "waiting",
    "requested",
    "started",
    "succeeded",
    "failed",
    "unverified",
    "rejected",
    "superseded",
    "expired",
    "no_target",
]


class AlertTransition(Message):
    """One transition of an alert. `id` = incident; `window` the window in which it happened (its start)."""

    id: str
    shard: int
    sequence: int
    """Transitions of one alert count from 1."""
    app: str
    environment: str
    rule: str
    metric: str
    slice: str
    state: AlertState
    previous: AlertState | None
    window: int
    opened_window: int
    onset: int
    reason: str
    statistic: float = 0.0
    threshold: float = 0.0
    effect: Effect | None = None
    contributions: list[Contribution] = []
    paged: bool = False
    config: str = ""
    rules: str = ""
    """Digest of the rules that judged it."""
    actor: str = "controller"


class ActionTarget(msgspec.Struct, kw_only=True, omit_defaults=True):
    app: str
    environment: str
    version: str | None = None
    """The bad version of a rollback; the candidate of an evaluation or a canary."""
    to_version: str | None = None


class Precondition(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What must still be true when a worker starts; null: nothing is asked (an app without the gateway has no route)."""

    route_epoch: int | None = None
    version: str | None = None


class ActionStep(Message):
    """One step of an action: the request by the controller, then what workers and people did.

    It expires `ttl_s` seconds after the append time of its first step.
    """

    id: str
    shard: int
    sequence: int
    incident: str
    kind: ActionKind
    target: ActionTarget
    mode: Mode
    state: ActionState
    attempt: int
    window: int
    ttl_s: int
    reason: str
    actor: str = "controller"
    precondition: Precondition = msgspec.field(default_factory=Precondition)
    evidence: list[str] = []
    """Sentences and alert ids that justify the action."""
    phase: str = ""
    """Where a running action stands: see docs/loop.md for the phases of each kind."""
    data: dict[str, Scalar] = {}
    """Facts of the phase: job and file ids, route epoch, weight, figures. A step carries on what the step before it had."""
    config: str = ""
    rules: str = ""


# --- llm.routes, llm.gateways ---------------------------------------------------------------------------------------


class CallConfiguration(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """What a registry version is: everything that decides how a request is answered, but the request itself."""

    model: str
    """Model or deployment that the provider is asked for."""
    system_prompt: str | None = None
    """Put before the request's messages, in place of system messages of its own."""
    parameters: dict[str, Scalar] = {}
    """Sampling parameters; they replace those of the request."""
    tools: list[dict[str, Any]] = []
    """Tool definitions in the provider's format; they replace those of the request where there are any."""


class RouteTable(Message):
    """Which version answers an app's requests. One writer per app: epoch = the epoch that it was based on + 1.

    A unit (conversation, else user, else request) falls into [0, WEIGHT_ONE) by a stable hash with `experiment`; below
    `weight` it is the candidate's. A table carries whole call configurations, so that a gateway needs nothing else.
    """

    app: str
    environment: str
    epoch: int
    based_on: int
    champion: str
    candidate: str | None = None
    weight: int = 0
    previous: str | None = None
    """The champion before this one."""
    experiment: str = ""
    versions: dict[str, CallConfiguration] = {}
    """Of champion, candidate and previous."""
    bad: list[str] = []
    """Versions that were rolled back, the newest last."""
    hold: str | None = None
    """The person whose rollback stands: no automatic actor changes the table."""
    action: str | None = None
    """The action whose step this is, so that a second worker sees that it has been done."""
    actor: str = ""
    reason: str = ""


class RouteReport(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one gateway does for one app since it applied `epoch`."""

    app: str
    environment: str
    epoch: int
    champion: str
    """Of the table with that epoch."""
    started: dict[str, int] = {}
    """Version → requests started since the epoch was applied."""
    running: dict[str, int] = {}
    """Version → requests under way now, whenever they started: streams may run for long."""


class GatewayReport(Message):
    """A gateway's lease and confirmation, keyed by instance; the last one of a clean stop says `stopped`.

    The lease is live for `lease_ms` from this record's append time. A gateway whose own clock says that it could not renew
    it for `grace_ms` routes to champions only.
    """

    instance: str
    incarnation: str
    """New at each start. One instance runs once at a time (it locks its spool): a new incarnation means that the old one is dead."""
    sequence: int
    lease_ms: int = 3_000
    grace_ms: int = 10_000
    stopped: bool = False
    known_dead: str | None = None
    """Who saw that the process is gone: written by its supervisor or by a person on the gateway's behalf."""
    routes: list[RouteReport] = []
    spooled: int = 0
    """Events that wait on disk."""
    shed: int = 0
    """Events or texts that were dropped because the spool was full, since the start."""


# --- llm.state ----------------------------------------------------------------------------------------------------


class StateSection(Message):
    """One section of a shard's fold state, as of `window` (the last one folded) and the input offsets it reflects."""

    shard: int
    section: str
    window: int
    data: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class LedgerMissing(msgspec.Struct, kw_only=True):
    """Arguments of a `ledger_missing` command, flattened into scalars by the ledger."""

    topic: str
    partition: int
    start: int
    end: int


JSON = dict[str, Any]
