SELECT claim
FROM schema_migration_claims
WHERE claimed_ms >= {since:Int64}
ORDER BY claimed_ms, claim
LIMIT 1
