DELETE FROM schema_migration_claims WHERE claim = {claim:String}
