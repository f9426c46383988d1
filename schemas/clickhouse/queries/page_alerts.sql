SELECT
    id,
    app,
    environment,
    rule,
    metric,
    slice,
    state,
    toUnixTimestamp64Milli(arrival) AS changed_ms,
    toUnixTimestamp64Milli(opened_window) AS opened_ms,
    toUnixTimestamp64Milli(onset) AS onset_ms,
    reason,
    effect,
    contributions,
    paged,
    actor
FROM
(
    SELECT *
    FROM alerts
    WHERE lane = 'live' AND arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    ORDER BY id, sequence DESC
    LIMIT 1 BY id
)
ORDER BY state = 'firing' DESC, state = 'acknowledged' DESC, state = 'resolved', changed_ms DESC
LIMIT {limit:UInt32}
