SELECT app, environment, toInt64(sum(events)) AS total, groupArray((bucket, events)) AS buckets
FROM
(
    SELECT
        app,
        environment,
        intDiv(toUnixTimestamp64Milli(window) - {since:Int64}, {bucket:Int64}) AS bucket,
        toInt64(sum(versions)) AS events
    FROM
    (
        SELECT app, environment, version, window, max(n) AS versions
        FROM window_rows
        WHERE lane = 'live' AND resolution = 5
            AND window >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
            AND metric NOT LIKE 'thumbs.%'
        GROUP BY app, environment, version, window
    )
    GROUP BY app, environment, bucket
)
GROUP BY app, environment
ORDER BY total DESC, app, environment
LIMIT {apps:UInt32}
