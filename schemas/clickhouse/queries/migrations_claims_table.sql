CREATE TABLE IF NOT EXISTS schema_migration_claims
(
    claim String,
    claimed_ms Int64
)
ENGINE = MergeTree
ORDER BY (claimed_ms, claim)
