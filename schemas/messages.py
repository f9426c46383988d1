"""Every message that travels on a topic, as msgspec structs; `schemas/json/` is generated from here.

Times named `*_time` or `window` are integer milliseconds since 1970 UTC of the broker's append time, unless the
docstring says that they are the client's. All counts are integers. Scores are fixed-point with `FIXED_ONE` = 1.
"""

from typing import Any, Final, Literal

import msgspec

WINDOW_MS: Final = 5_000
FIXED_ONE: Final = 65_535

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


class BlockSummary(Message):
    """One block's counts for one shard, part `part` of `parts` (from 1); every part carries the block's header."""

    header: BlockHeader
    shard: int
    part: int = 1
    parts: int = 1
    groups: list[Group] = []


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


class Rules(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """The policy: the false-alarm budget in words a person can hold, and what follows an alert."""

    false_pages: int = 1
    per_days: float = 30.0
    delta: float = 0.05
    """Stated probability, per app, that the reference misleads."""
    reference_events: int = 5_000
    rules: tuple[PolicyRule, ...] = ()
    kill_switch: bool = False


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
    max_text_bytes: int = 32_768
    max_pairs_per_block: int = 256


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


class Contribution(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One bin's share of the statistic at the alarm."""

    bin: str
    name: str
    share: float
    before: float
    after: float


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
ActionKind = Literal["retrain", "rollback"]
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
    """The bad version of a rollback."""
    to_version: str | None = None


class Precondition(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What must still be true when a worker starts; `route_epoch` is null until there is a gateway."""

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
    config: str = ""
    rules: str = ""


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
