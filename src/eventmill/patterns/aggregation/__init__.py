"""Event aggregation: many fine events, one coarse event."""
