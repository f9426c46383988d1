SELECT number, argMin(checksum, applied) AS checksum
FROM schema_migrations
GROUP BY number
ORDER BY number
