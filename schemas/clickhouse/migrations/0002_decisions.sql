CREATE TABLE IF NOT EXISTS window_rows
(
    app LowCardinality(String),
    lane LowCardinality(String),
    environment LowCardinality(String),
    resolution UInt32,
    metric LowCardinality(String),
    version LowCardinality(String),
    window DateTime64(3, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    shard UInt32,
    n Int64 CODEC(ZSTD(1)),
    bins Array(Int32) CODEC(ZSTD(1)),
    names Array(LowCardinality(String)) CODEC(ZSTD(1)),
    counts Array(Int64) CODEC(ZSTD(1))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(window, 'UTC')
ORDER BY (app, lane, environment, resolution, metric, version, window)
TTL
    toDateTime(window) + INTERVAL 30 DAY DELETE WHERE resolution < 60,
    toDateTime(window) + INTERVAL 90 DAY DELETE WHERE resolution < 3600,
    toDateTime(window) + INTERVAL 400 DAY DELETE WHERE resolution >= 3600
;
CREATE TABLE IF NOT EXISTS detections
(
    app LowCardinality(String),
    lane LowCardinality(String),
    environment LowCardinality(String),
    id String,
    arrival DateTime64(3, 'UTC'),
    partition UInt32,
    offset Int64,
    shard UInt32,
    metric LowCardinality(String),
    slice LowCardinality(String),
    window DateTime64(3, 'UTC'),
    onset DateTime64(3, 'UTC'),
    statistic Float64,
    threshold Float64,
    effect String,
    contributions String,
    config LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (app, lane, id, partition, offset)
TTL toDateTime(arrival) + INTERVAL 400 DAY
;
CREATE TABLE IF NOT EXISTS alerts
(
    app LowCardinality(String),
    lane LowCardinality(String),
    environment LowCardinality(String),
    id String,
    sequence UInt32,
    arrival DateTime64(3, 'UTC'),
    partition UInt32,
    offset Int64,
    shard UInt32,
    rule LowCardinality(String),
    metric LowCardinality(String),
    slice LowCardinality(String),
    state LowCardinality(String),
    previous LowCardinality(String),
    window DateTime64(3, 'UTC'),
    opened_window DateTime64(3, 'UTC'),
    onset DateTime64(3, 'UTC'),
    reason String,
    statistic Float64,
    threshold Float64,
    effect String,
    contributions String,
    paged Bool,
    config LowCardinality(String),
    rules LowCardinality(String),
    actor String
)
ENGINE = ReplacingMergeTree
ORDER BY (app, lane, id, sequence, partition, offset)
TTL toDateTime(arrival) + INTERVAL 400 DAY
;
CREATE TABLE IF NOT EXISTS actions
(
    app LowCardinality(String),
    lane LowCardinality(String),
    environment LowCardinality(String),
    id String,
    sequence UInt32,
    arrival DateTime64(3, 'UTC'),
    partition UInt32,
    offset Int64,
    shard UInt32,
    incident String,
    kind LowCardinality(String),
    version String,
    to_version String,
    mode LowCardinality(String),
    state LowCardinality(String),
    attempt UInt32,
    window DateTime64(3, 'UTC'),
    ttl_s UInt32,
    reason String,
    actor String,
    precondition String,
    evidence Array(String),
    config LowCardinality(String),
    rules LowCardinality(String)
)
ENGINE = ReplacingMergeTree
ORDER BY (app, lane, id, sequence, partition, offset)
TTL toDateTime(arrival) + INTERVAL 400 DAY
;
CREATE TABLE IF NOT EXISTS cuts
(
    shard UInt32,
    last_window DateTime64(3, 'UTC'),
    first_window DateTime64(3, 'UTC'),
    offset Int64,
    windows UInt32,
    summaries_end Int64,
    commands_end Int64,
    actions_end Int64,
    config_end Int64,
    catch_up_until Nullable(DateTime64(3, 'UTC'))
)
ENGINE = ReplacingMergeTree
ORDER BY (shard, last_window, offset)
TTL toDateTime(last_window) + INTERVAL 30 DAY
;
CREATE TABLE IF NOT EXISTS settings
(
    app LowCardinality(String),
    name LowCardinality(String),
    value String,
    updated DateTime64(3, 'UTC') DEFAULT now64(3)
)
ENGINE = ReplacingMergeTree(updated)
ORDER BY (app, name)
