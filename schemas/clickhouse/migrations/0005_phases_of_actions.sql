ALTER TABLE actions
    ADD COLUMN IF NOT EXISTS phase LowCardinality(String) AFTER evidence,
    ADD COLUMN IF NOT EXISTS data String AFTER phase
;
