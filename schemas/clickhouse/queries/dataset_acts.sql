SELECT
    f.id,
    f.interaction_id,
    concat(f.topic_id, '/', toString(f.partition), '/', toString(f.offset)) AS source,
    toUnixTimestamp64Milli(f.arrival) AS arrival,
    f.actor,
    f.name,
    f.attribution = 'receipt' AS by_receipt,
    f.correction,
    f.scores AS act_scores,
    i.prompt,
    i.messages,
    i.response,
    i.scores AS scores,
    i.error_type,
    i.text_truncated,
    i.parts_not_scored,
    i.tool_calls
FROM
(
    SELECT *
    FROM feedback FINAL
    WHERE app = {app:String} AND lane = 'live' AND environment = {environment:String}
        AND arrival >= now64(3) - toIntervalDay({days:UInt32})
        AND attribution IN ('receipt', 'stated') AND kind = 'explicit'
) AS f
INNER JOIN
(
    SELECT *
    FROM interactions FINAL
    WHERE app = {app:String} AND lane = 'live' AND environment = {environment:String}
        AND arrival >= now64(3) - toIntervalDay({days:UInt32} + 1)
) AS i ON i.id = f.interaction_id
ORDER BY f.arrival DESC, source
LIMIT {most:UInt32}
