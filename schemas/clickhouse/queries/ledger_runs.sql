WITH blocks AS
(
    SELECT DISTINCT topic, topic_id, partition, window, digest, start_offset, end_offset, scored, dead, poison, tick, control
    FROM headers
    WHERE window >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
),
links AS
(
    SELECT *, start_offset != lagInFrame(end_offset, 1, -1) OVER chain AS breaks
    FROM blocks
    WINDOW chain AS (PARTITION BY topic_id, partition ORDER BY start_offset, end_offset, digest)
),
numbered AS
(
    SELECT *, sum(breaks) OVER (PARTITION BY topic_id, partition ORDER BY start_offset, end_offset, digest) AS run
    FROM links
)
SELECT
    topic,
    topic_id,
    partition,
    min(start_offset) AS start,
    max(end_offset) AS end,
    toUnixTimestamp64Milli(min(window)) AS first_window,
    toUnixTimestamp64Milli(max(window)) AS last_window,
    sum(numbered.scored) AS scored,
    sum(numbered.dead) AS dead,
    sum(numbered.poison) AS poison,
    sum(numbered.tick) AS tick,
    sum(numbered.control) AS control
FROM numbered
GROUP BY topic, topic_id, partition, run
ORDER BY topic, topic_id, partition, start
LIMIT 100000
