SELECT
    row.app AS app,
    row.environment AS environment,
    row.id AS id,
    row.version AS version,
    toUnixTimestamp64Milli(row.last_arrival) AS arrival_ms,
    row.prompt AS prompt,
    row.response AS response,
    row.text_truncated AS text_truncated,
    row.scores AS scores,
    row.labels AS labels,
    row.reasons AS reasons,
    row.score_errors AS score_errors,
    scored.config AS config
FROM interactions_by_id AS row
ANY LEFT JOIN
(
    SELECT app, environment, id, argMax(config, (arrival, partition, offset)) AS config
    FROM interactions
    WHERE id = {id:String}
    GROUP BY app, environment, id
) AS scored ON scored.app = row.app AND scored.environment = row.environment AND scored.id = row.id
WHERE row.id = {id:String} AND ({app:String} = '' OR row.app = {app:String})
ORDER BY app, environment
LIMIT 20
