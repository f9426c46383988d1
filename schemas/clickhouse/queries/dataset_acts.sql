SELECT
    act.id AS id,
    act.interaction_id AS interaction_id,
    act.topic_id AS topic_id,
    act.partition AS partition,
    act.offset AS offset,
    act.arrival_ms AS arrival_ms,
    act.actor AS actor,
    act.name AS name,
    act.attribution AS attribution,
    act.correction AS correction,
    act.thumbs_down AS thumbs_down,
    answered.prompt AS prompt,
    answered.response AS response,
    answered.messages AS messages,
    answered.tools AS tools,
    answered.text_truncated AS text_truncated,
    answered.parts_not_scored AS parts_not_scored,
    answered.error_type AS error_type,
    answered.fired AS fired
FROM
(
    SELECT
        id,
        interaction_id,
        topic_id,
        partition,
        offset,
        toUnixTimestamp64Milli(arrival) AS arrival_ms,
        actor,
        name,
        attribution,
        correction,
        if(mapContains(scores, 'thumbs.down'), toInt8(scores['thumbs.down'] >= {fires:Int64}), toInt8(-1)) AS thumbs_down
    FROM feedback
    WHERE app = {app:String} AND environment = {environment:String} AND lane = 'live'
        AND arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
        AND kind = 'explicit'
        AND attribution IN ('receipt', 'stated')
        AND (correction != '' OR mapContains(scores, 'thumbs.down'))
    ORDER BY arrival DESC, topic_id, partition, offset
    LIMIT 1 BY topic_id, partition, offset
    LIMIT {limit:UInt32}
) AS act
INNER JOIN
(
    SELECT
        id,
        prompt,
        response,
        messages,
        tool_calls != '' AS tools,
        text_truncated,
        parts_not_scored,
        error_type,
        arrayFilter(name -> scores[name] >= {fires:Int64}, {flagging:Array(String)}) AS fired
    FROM interactions_by_id
    WHERE app = {app:String} AND environment = {environment:String} AND kind = 'chat'
        AND id IN
        (
            SELECT interaction_id
            FROM feedback
            WHERE app = {app:String} AND environment = {environment:String} AND lane = 'live'
                AND arrival >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
                AND kind = 'explicit'
                AND attribution IN ('receipt', 'stated')
                AND (correction != '' OR mapContains(scores, 'thumbs.down'))
        )
) AS answered ON act.interaction_id = answered.id
ORDER BY act.arrival_ms, act.topic_id, act.partition, act.offset
