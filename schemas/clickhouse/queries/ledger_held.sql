SELECT DISTINCT offset
FROM
(
    SELECT offset FROM interactions
    WHERE lane = 'live' AND topic_id = {topic_id:String} AND partition = {partition:UInt32} AND offset >= {start:Int64} AND offset < {end:Int64}
    UNION ALL
    SELECT offset FROM feedback
    WHERE lane = 'live' AND topic_id = {topic_id:String} AND partition = {partition:UInt32} AND offset >= {start:Int64} AND offset < {end:Int64}
    UNION ALL
    SELECT offset FROM dead_letters
    WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32} AND offset >= {start:Int64} AND offset < {end:Int64}
    UNION ALL
    SELECT offset FROM deletions
    WHERE topic_id = {topic_id:String} AND partition = {partition:UInt32} AND offset >= {start:Int64} AND offset < {end:Int64}
)
ORDER BY offset
