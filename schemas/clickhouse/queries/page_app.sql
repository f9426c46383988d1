SELECT
    metric,
    version,
    toInt64(sum(events)) AS total,
    sumMap(row_bins, row_counts) AS distribution,
    groupArray(intDiv(toUnixTimestamp64Milli(window) - {since:Int64}, {resolution:Int64} * 1000)) AS buckets,
    groupArray(events) AS counts,
    groupArray(fired) AS fires
FROM
(
    SELECT
        metric,
        version,
        window,
        any(n) AS events,
        any(bins) AS row_bins,
        any(counts) AS row_counts,
        arraySum(arrayMap((bin, count) -> if(bin = 1, count, 0), row_bins, row_counts)) AS fired
    FROM window_rows
    WHERE app = {app:String} AND lane = 'live' AND environment = {environment:String} AND resolution = {resolution:Int64}
        AND window >= fromUnixTimestamp64Milli({since:Int64}, 'UTC')
        AND window < fromUnixTimestamp64Milli({until:Int64}, 'UTC')
        AND empty(names)
    GROUP BY metric, version, window
)
GROUP BY metric, version
ORDER BY metric, version
LIMIT {series:UInt32}
