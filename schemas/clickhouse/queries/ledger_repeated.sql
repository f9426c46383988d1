SELECT toInt64(sum(records - 1)) AS repeated
FROM
(
    SELECT uniqExact(topic_id, partition, offset) AS records
    FROM interactions
    WHERE lane = 'live'
    GROUP BY app, environment, id, part
    HAVING count() > 1
    UNION ALL
    SELECT uniqExact(topic_id, partition, offset) AS records
    FROM feedback
    WHERE lane = 'live'
    GROUP BY app, environment, id
    HAVING count() > 1
)
