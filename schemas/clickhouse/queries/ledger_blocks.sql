WITH
    blocks AS
    (
        SELECT DISTINCT topic, topic_id, partition, window, digest, start_offset, end_offset, scored, dead
        FROM headers
        WHERE window >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
    ),
    coordinates AS
    (
        SELECT DISTINCT topic_id, partition, offset, kind
        FROM
        (
            SELECT topic_id, partition, offset, 'row' AS kind FROM interactions
            WHERE lane = 'live' AND arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') - INTERVAL 1 MINUTE
            UNION ALL
            SELECT topic_id, partition, offset, 'row' AS kind FROM feedback
            WHERE lane = 'live' AND arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') - INTERVAL 1 MINUTE
            UNION ALL
            SELECT topic_id, partition, offset, 'dead' AS kind FROM dead_letters
            WHERE arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC') - INTERVAL 1 MINUTE
            UNION ALL
            SELECT topic_id, partition, offset, 'deleted' AS kind FROM deletions
        )
    ),
    held AS
    (
        SELECT
            b.topic_id AS topic_id,
            b.partition AS partition,
            b.start_offset AS start_offset,
            countIf(c.kind = 'row' AND c.offset < b.end_offset) AS held,
            countIf(c.kind = 'dead' AND c.offset < b.end_offset) AS dead_held,
            countIf(c.kind = 'deleted' AND c.offset < b.end_offset) AS deleted
        FROM coordinates AS c
        ASOF INNER JOIN blocks AS b
            ON c.topic_id = b.topic_id AND c.partition = b.partition AND c.offset >= b.start_offset
        GROUP BY topic_id, partition, start_offset
    )
SELECT
    b.topic AS topic,
    b.topic_id AS topic_id,
    b.partition AS partition,
    toUnixTimestamp64Milli(b.window) AS window,
    b.start_offset AS start,
    b.end_offset AS end,
    b.scored AS scored,
    h.held AS held,
    b.dead AS dead,
    h.dead_held AS dead_held,
    h.deleted AS deleted
FROM blocks AS b
LEFT JOIN held AS h ON b.topic_id = h.topic_id AND b.partition = h.partition AND b.start_offset = h.start_offset
WHERE b.scored != h.held OR b.dead != h.dead_held OR h.deleted > 0
ORDER BY topic, topic_id, partition, start
LIMIT 10000
