"""I/O without rules: Kafka, ClickHouse, settings, text sources."""
