"""Steps of the PostgreSQL schema. `{schema}` stands for the quoted schema name."""
