CREATE TABLE IF NOT EXISTS interactions
(
    app LowCardinality(String),
    lane LowCardinality(String),
    arrival DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    topic_id LowCardinality(String),
    partition UInt32,
    offset Int64 CODEC(Delta, ZSTD(1)),
    topic LowCardinality(String),
    config LowCardinality(String),
    environment LowCardinality(String),
    version LowCardinality(String),
    id String CODEC(ZSTD(1)),
    time String CODEC(ZSTD(1)),
    event_time DateTime64(3, 'UTC') MATERIALIZED ifNull(parseDateTime64BestEffortOrNull(time, 3, 'UTC'), arrival) CODEC(Delta, ZSTD(1)),
    kind LowCardinality(String),
    part LowCardinality(String),
    provider LowCardinality(String),
    request_model LowCardinality(String),
    response_model LowCardinality(String),
    prompt_name LowCardinality(String),
    prompt_version LowCardinality(String),
    arm LowCardinality(String),
    route_epoch Nullable(Int64) CODEC(ZSTD(1)),
    turn Nullable(Int64) CODEC(ZSTD(1)),
    conversation String CODEC(ZSTD(1)),
    trace_id String CODEC(ZSTD(1)),
    span_id String CODEC(ZSTD(1)),
    parent_id String CODEC(ZSTD(1)),
    user String CODEC(ZSTD(1)),
    prompt String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    response String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    messages String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    tool_calls String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    documents String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    finish_reasons Array(LowCardinality(String)) CODEC(ZSTD(1)),
    input_tokens Nullable(Int64) CODEC(ZSTD(1)),
    output_tokens Nullable(Int64) CODEC(ZSTD(1)),
    latency_us Nullable(Int64) CODEC(ZSTD(1)),
    first_chunk_us Nullable(Int64) CODEC(ZSTD(1)),
    cost_microusd Nullable(Int64) CODEC(ZSTD(1)),
    error_type LowCardinality(String),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    parts_not_scored UInt32 CODEC(ZSTD(1)),
    text_truncated Bool,
    scores Map(LowCardinality(String), Int64) CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    reasons String CODEC(ZSTD(1)),
    score_errors Array(LowCardinality(String)) CODEC(ZSTD(1)),
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_conversation conversation TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(arrival, 'UTC')
ORDER BY (app, lane, arrival, topic_id, partition, offset)
TTL toDateTime(arrival) + INTERVAL 90 DAY
SETTINGS ttl_only_drop_parts = 0
;
CREATE TABLE IF NOT EXISTS feedback
(
    app LowCardinality(String),
    lane LowCardinality(String),
    arrival DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    topic_id LowCardinality(String),
    partition UInt32,
    offset Int64 CODEC(Delta, ZSTD(1)),
    topic LowCardinality(String),
    config LowCardinality(String),
    environment LowCardinality(String),
    version LowCardinality(String),
    id String CODEC(ZSTD(1)),
    interaction_id String CODEC(ZSTD(1)),
    name LowCardinality(String),
    kind LowCardinality(String),
    attribution LowCardinality(String),
    time String CODEC(ZSTD(1)),
    event_time DateTime64(3, 'UTC') MATERIALIZED ifNull(parseDateTime64BestEffortOrNull(time, 3, 'UTC'), arrival) CODEC(Delta, ZSTD(1)),
    turn Nullable(Int64) CODEC(ZSTD(1)),
    route_epoch Nullable(Int64) CODEC(ZSTD(1)),
    score Nullable(Int64) CODEC(ZSTD(1)),
    label LowCardinality(String),
    comment String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    correction String CODEC(ZSTD(1)) TTL toDateTime(arrival) + INTERVAL 30 DAY,
    actor String CODEC(ZSTD(1)),
    attributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    receipt_error LowCardinality(String),
    scores Map(LowCardinality(String), Int64) CODEC(ZSTD(1)),
    labels Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    reasons String CODEC(ZSTD(1)),
    score_errors Array(LowCardinality(String)) CODEC(ZSTD(1)),
    INDEX by_interaction interaction_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toDate(arrival, 'UTC')
ORDER BY (app, lane, arrival, topic_id, partition, offset)
TTL toDateTime(arrival) + INTERVAL 90 DAY
;
CREATE TABLE IF NOT EXISTS dead_letters
(
    topic LowCardinality(String),
    topic_id LowCardinality(String),
    partition UInt32,
    offset Int64 CODEC(Delta, ZSTD(1)),
    arrival DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    code LowCardinality(String),
    reason String CODEC(ZSTD(1)),
    field String CODEC(ZSTD(1)),
    size UInt64,
    sha256 String
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(arrival, 'UTC')
ORDER BY (topic, topic_id, partition, offset)
TTL toDateTime(arrival) + INTERVAL 90 DAY
;
CREATE TABLE IF NOT EXISTS headers
(
    topic LowCardinality(String),
    topic_id LowCardinality(String),
    partition UInt32,
    window DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    digest String COMMENT 'of the header: equal copies collapse, unequal ones stay and are a fault',
    start_offset Int64 CODEC(Delta, ZSTD(1)),
    end_offset Int64 CODEC(Delta, ZSTD(1)),
    config LowCardinality(String),
    scored UInt64 CODEC(ZSTD(1)),
    dead UInt64 CODEC(ZSTD(1)),
    poison UInt64 CODEC(ZSTD(1)),
    tick UInt64 CODEC(ZSTD(1)),
    control UInt64 CODEC(ZSTD(1)),
    dead_reasons Map(LowCardinality(String), UInt64)
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(window, 'UTC')
ORDER BY (topic, topic_id, partition, window, digest)
TTL toDateTime(window) + INTERVAL 400 DAY
;
CREATE TABLE IF NOT EXISTS deletions
(
    topic LowCardinality(String),
    topic_id LowCardinality(String),
    partition UInt32,
    offset Int64,
    deleted DateTime64(3, 'UTC') DEFAULT now64(3),
    reason LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (topic, topic_id, partition, offset)
;
CREATE TABLE IF NOT EXISTS ledger_findings
(
    id String,
    topic LowCardinality(String),
    topic_id LowCardinality(String),
    partition UInt32,
    start_offset Int64,
    end_offset Int64,
    records UInt64,
    what LowCardinality(String),
    state LowCardinality(String) COMMENT 'missing, or found: posted to llm.commands as such',
    posted DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(posted)
ORDER BY (topic, topic_id, partition, id)
TTL toDateTime(posted) + INTERVAL 400 DAY
