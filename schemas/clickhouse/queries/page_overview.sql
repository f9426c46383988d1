SELECT app, environment, toInt64(sum(events)) AS total, groupArray(bucket) AS buckets, groupArray(events) AS counts
FROM
(
    SELECT
        app,
        environment,
        intDiv(toUnixTimestamp64Milli(window) - {since:Int64}, {resolution:Int64} * 1000) AS bucket,
        toInt64(sum(versions)) AS events
    FROM
    (
        SELECT app, environment, version, window, max(n) AS versions
        FROM window_rows
        WHERE lane = 'live' AND resolution = {resolution:Int64}
            AND window >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
            AND window < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
            AND metric LIKE 'scorer.error@%' -- of every interaction, whatever its kind; n counts them all
        GROUP BY app, environment, version, window
    )
    GROUP BY app, environment, bucket
)
GROUP BY app, environment
ORDER BY total DESC, app, environment
LIMIT {apps:UInt32}
