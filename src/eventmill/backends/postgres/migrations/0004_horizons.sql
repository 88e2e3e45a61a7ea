-- The position up to which messages of a topic may have been removed; a topic that is not here is whole.
CREATE TABLE {schema}.eventmill_horizons (
    topic text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL
);

-- What was trimmed before this was kept: keys whose count has begun and whose first message is gone.
INSERT INTO {schema}.eventmill_horizons (topic, position)
SELECT s.topic, coalesce(min(l.position) - 1, 9223372036854775807)
FROM (SELECT DISTINCT topic FROM {schema}.eventmill_sequences) AS s
LEFT JOIN {schema}.eventmill_log AS l ON l.topic = s.topic
WHERE EXISTS (
    SELECT 1 FROM {schema}.eventmill_sequences AS k WHERE k.topic = s.topic AND NOT EXISTS (
        SELECT 1 FROM {schema}.eventmill_log AS f WHERE f.topic = k.topic AND f.key = k.key AND f.sequence = 1))
GROUP BY s.topic;
