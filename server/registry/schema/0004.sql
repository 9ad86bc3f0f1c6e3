-- Systems that run from memory: what a boot was started to run, one row for each boot that came, and its tokens.
ALTER TABLE offers ADD COLUMN live {text} NOT NULL DEFAULT ''; -- name/version, for a boot that runs it from memory
ALTER TABLE events ADD COLUMN live BIGINT NOT NULL DEFAULT 0;  -- it is about such a boot, whose ID stands in order_id

CREATE TABLE live_boots (
    id      {text} PRIMARY KEY,
    sn      {text} NOT NULL,
    image   {text} NOT NULL,
    boot    {text} NOT NULL UNIQUE,
    state   TEXT   NOT NULL,
    seq     BIGINT NOT NULL, -- of the last event that the machine sent
    made    BIGINT NOT NULL, -- counts live boots
    started BIGINT NOT NULL,
    heard   BIGINT NOT NULL,
    since   BIGINT NOT NULL, -- it has been in its state
    over    BIGINT NOT NULL  -- when something else took its place; 0 for what the host does now
);
CREATE UNIQUE INDEX live_boots_now ON live_boots (sn) WHERE over = 0;
CREATE INDEX live_boots_sn ON live_boots (sn, made);
CREATE INDEX live_boots_state ON live_boots (state, heard);
INSERT INTO counters (name, value) VALUES ('live', 0);

CREATE TABLE live_tokens (
    digest  {text} PRIMARY KEY,
    live_id {text} NOT NULL REFERENCES live_boots (id) ON DELETE CASCADE,
    created BIGINT NOT NULL
);
CREATE INDEX live_tokens_live ON live_tokens (live_id);
