-- Jobs have priorities, and names by which they are found.
ALTER TABLE eventmill_jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;

ALTER TABLE eventmill_jobs ADD COLUMN reference TEXT;

-- The first due job of each priority is found at once, however many wait behind it or for their time.
DROP INDEX eventmill_jobs_due;

CREATE INDEX eventmill_jobs_due ON eventmill_jobs (queue, state, priority, due);

CREATE INDEX eventmill_jobs_reference ON eventmill_jobs (reference) WHERE reference IS NOT NULL;

-- What is rare must not be looked for among all the others.
CREATE INDEX eventmill_jobs_crashed ON eventmill_jobs (queue, due) WHERE crashed > 0;

CREATE INDEX eventmill_jobs_dead ON eventmill_jobs (due) WHERE state = 'dead';
