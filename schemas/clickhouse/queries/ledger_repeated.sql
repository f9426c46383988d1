SELECT toInt64(sum(records - once)) AS repeated
FROM
(
    SELECT
        uniqExact(topic_id, partition, offset) AS records,
        if(countIf(part = 'whole') > 0, 1, uniqExact(part)) AS once
    FROM interactions
    WHERE lane = 'live'
    GROUP BY app, environment, id
    HAVING count() > 1
    UNION ALL
    SELECT uniqExact(topic_id, partition, offset) AS records, 1 AS once
    FROM feedback
    WHERE lane = 'live'
    GROUP BY app, environment, id
    HAVING count() > 1
)
