-- Streams are the log itself; what is new are tags, and ids that a caller may give a second time.

-- 1 where the id was the caller's own, so that the append may be repeated.
ALTER TABLE eventmill_log ADD COLUMN repeatable INTEGER;

CREATE INDEX eventmill_log_repeatable ON eventmill_log (topic, key, id) WHERE repeatable IS NOT NULL;

-- Where the events of each tag stand. A message's tags are also among its attributes.
CREATE TABLE eventmill_tags (
    tag TEXT NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (tag, position)
) WITHOUT ROWID;
