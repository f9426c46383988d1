SELECT
    id,
    app,
    environment,
    incident,
    kind,
    version,
    to_version,
    mode,
    state,
    toUnixTimestamp64Milli(arrival) AS changed_ms,
    reason,
    actor,
    evidence
FROM
(
    SELECT *
    FROM actions
    WHERE lane = 'live' AND arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    ORDER BY id, sequence DESC
    LIMIT 1 BY id
)
ORDER BY changed_ms DESC
LIMIT {limit:UInt32}
