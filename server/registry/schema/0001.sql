-- Times are microseconds since 1970 in UTC, 0 for none; flags are 0 or 1. {text} compares by bytes, {bytes} are bytes.
CREATE TABLE hosts (
    sn        {text} PRIMARY KEY,
    state     TEXT   NOT NULL,
    rack      {text} NOT NULL,
    owner     {text} NOT NULL,
    image     {text} NOT NULL,
    words     TEXT   NOT NULL, -- what HostFilter.Match looks in, in small letters
    doc       TEXT   NOT NULL, -- what people write, as JSON, without the password
    password  TEXT   NOT NULL, -- of the management controller
    inventory TEXT   NOT NULL,
    booted    TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    updated   BIGINT NOT NULL,
    revision  BIGINT NOT NULL
);

CREATE TABLE host_macs (
    mac     {text} NOT NULL,
    sn      {text} NOT NULL REFERENCES hosts (sn) ON DELETE CASCADE,
    written BIGINT NOT NULL, -- by a person; else it is the inventory's
    PRIMARY KEY (mac, sn)
);
CREATE INDEX host_macs_sn ON host_macs (sn);
CREATE UNIQUE INDEX host_macs_written ON host_macs (mac) WHERE written = 1;

CREATE TABLE orders (
    id       {text} PRIMARY KEY,
    sn       {text} NOT NULL,
    image    {text} NOT NULL,
    person   TEXT   NOT NULL,
    reason   TEXT   NOT NULL,
    names    BIGINT NOT NULL,
    disk     TEXT   NOT NULL,
    wipe     TEXT   NOT NULL, -- JSON
    finally  TEXT   NOT NULL,
    state    TEXT   NOT NULL,
    prior    TEXT   NOT NULL, -- the host's state when the order was made
    rack     {text} NOT NULL, -- or subnet whose slots it takes
    boot     {text} NOT NULL,
    seq      BIGINT NOT NULL, -- of the last event that the machine sent
    made     BIGINT NOT NULL, -- counts orders
    turn     BIGINT NOT NULL, -- counts consumed ones
    queued   BIGINT NOT NULL, -- it was told to wait
    lost     BIGINT NOT NULL, -- it failed because nothing was heard
    gone     BIGINT NOT NULL, -- its host was deleted since
    created  BIGINT NOT NULL,
    expires  BIGINT NOT NULL,
    consumed BIGINT NOT NULL,
    started  BIGINT NOT NULL,
    heard    BIGINT NOT NULL,
    finished BIGINT NOT NULL,
    ended    BIGINT NOT NULL
);
CREATE INDEX orders_sn ON orders (sn, made);
CREATE UNIQUE INDEX orders_made ON orders (made);
CREATE UNIQUE INDEX orders_live ON orders (sn) WHERE state IN ('open', 'consumed');
CREATE INDEX orders_open ON orders (expires) WHERE state = 'open';
CREATE INDEX orders_turn ON orders (turn) WHERE state = 'consumed';
CREATE INDEX orders_boot ON orders (state, boot);
CREATE INDEX orders_state ON orders (state, started, turn, heard);

CREATE TABLE order_tokens (
    digest    {text} PRIMARY KEY,
    order_id  {text} NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
    created   BIGINT NOT NULL
);
CREATE INDEX order_tokens_order ON order_tokens (order_id);

CREATE TABLE offers (
    digest   {text} PRIMARY KEY,
    sn       {text} NOT NULL,
    order_id {text} NOT NULL, -- empty for a boot that is only inspected
    created  BIGINT NOT NULL
);
CREATE INDEX offers_created ON offers (created);

CREATE TABLE events (
    id       BIGINT PRIMARY KEY,
    at       BIGINT NOT NULL,
    sn       {text} NOT NULL,
    order_id {text} NOT NULL,
    kind     TEXT   NOT NULL,
    person   TEXT   NOT NULL,
    message  TEXT   NOT NULL,
    machine  TEXT   NOT NULL  -- JSON
);
CREATE INDEX events_sn ON events (sn, id);
CREATE INDEX events_order ON events (order_id, id);

CREATE TABLE counters (
    name  {text} PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value) VALUES ('event', 0), ('order', 0), ('turn', 0);

CREATE TABLE tokens (
    name    {text} PRIMARY KEY,
    digest  {text} NOT NULL UNIQUE,
    role    TEXT   NOT NULL,
    created BIGINT NOT NULL,
    expires BIGINT NOT NULL
);

CREATE TABLE leases (
    address  {text} PRIMARY KEY,
    client   {text} NOT NULL,
    mac      {text} NOT NULL,
    sn       {text} NOT NULL,
    hostname TEXT   NOT NULL,
    subnet   {text} NOT NULL,
    state    TEXT   NOT NULL,
    expires  BIGINT NOT NULL
);

CREATE TABLE settings (
    name  {text}  PRIMARY KEY,
    value {bytes} NOT NULL
);
