WITH
    (
        SELECT min(arrival)
        FROM interactions
        WHERE app = {app:String} AND lane = 'live' AND attributes['story'] = {story:String}
    ) AS first
SELECT
    toUnixTimestamp64Milli(first) AS first_changed,
    count() AS records
FROM interactions
WHERE app = {app:String} AND lane = 'live' AND arrival >= first AND arrival <= fromUnixTimestamp64Milli({until:Int64}, 'UTC')
HAVING records > 0
