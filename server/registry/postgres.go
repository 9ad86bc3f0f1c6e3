package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

const (
	// writerLock is the advisory lock under which every transaction writes: writers of all servers take turns, so that no
	// rule of this package depends on what two of them see of each other, and events become visible in the order of
	// their IDs. The number is arbitrary ("imgr") and shared by all versions.
	writerLock = 0x696d6772
	// channel carries the ID of the newest event.
	channel = "imgbuild_events"
)

// postgres keeps the registry in a PostgreSQL database.
type postgres struct {
	config *pgx.ConnConfig
	binds  sync.Map // query → query with $1
}

func newPostgres(dsn string) (*postgres, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("open registry: %w", err) // pgx leaves the password out
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = 5 * time.Second
	}
	if c.ValidateConnect == nil { // after a failover the old primary is read-only
		c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	for name, value := range map[string]string{
		"application_name": "imgserve",
		// A server that is stopped or cut off in the middle of a transaction holds up the others for no longer than this.
		"idle_in_transaction_session_timeout": "10s",
		"tcp_keepalives_idle":                 "10",
		"tcp_keepalives_interval":             "5",
		"tcp_keepalives_count":                "3",
		"timezone":                            "UTC",
	} {
		if _, ok := c.RuntimeParams[name]; !ok {
			c.RuntimeParams[name] = value
		}
	}
	return &postgres{config: c}, nil
}

func (b *postgres) open(ctx context.Context) (*sql.DB, *sql.DB, error) {
	db := stdlib.OpenDB(*b.config, stdlib.OptionAfterConnect(func(ctx context.Context, c *pgx.Conn) error {
		// What is acknowledged is on the disk, whatever the database's default is.
		_, err := c.Exec(ctx, `SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'`)
		return err
	}))
	db.SetMaxOpenConns(10)
	db.SetMaxIdleConns(10)
	db.SetConnMaxIdleTime(5 * time.Minute)
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		return nil, nil, &databaseError{err}
	}
	return db, db, nil
}

func (b *postgres) ddl(text string) string {
	return strings.NewReplacer("{text}", `TEXT COLLATE "C"`, "{bytes}", "BYTEA").Replace(text)
}

// bind turns each ? into $1, $2, …: no query of this package has a question mark elsewhere.
func (b *postgres) bind(query string) string {
	if q, ok := b.binds.Load(query); ok {
		return q.(string)
	}
	var s strings.Builder
	n := 0
	for part := range strings.SplitSeq(query, "?") {
		if n > 0 {
			s.WriteString("$" + strconv.Itoa(n))
		}
		s.WriteString(part)
		n++
	}
	b.binds.Store(query, s.String())
	return s.String()
}

func (b *postgres) lock(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(writerLock))
	return err
}

// mark sends two statements at once, which only the simple protocol can.
func (b *postgres) mark(ctx context.Context, tx *sql.Tx, set bool) error {
	query := `SAVEPOINT one`
	if set {
		query = `RELEASE SAVEPOINT one; SAVEPOINT one`
	}
	_, err := tx.ExecContext(ctx, query, pgx.QueryExecModeSimpleProtocol)
	return err
}

func (b *postgres) readTx() *sql.TxOptions {
	return &sql.TxOptions{Isolation: sql.LevelRepeatableRead, ReadOnly: true}
}

func (b *postgres) timeout() time.Duration { return 20 * time.Second }

func (b *postgres) notify(ctx context.Context, t *tx, id int64) error {
	_, err := t.exec(ctx, `SELECT pg_notify(?, ?)`, channel, strconv.FormatInt(id, 10))
	return err
}

// listen keeps one connection that hears of other servers' events. Where it breaks, it rings when it is back: what came
// meanwhile is read then.
func (b *postgres) listen(ctx context.Context, ring func(id int64)) {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = min(wait*2+100*time.Millisecond, 5*time.Second)
		if b.listenOnce(ctx, ring) {
			wait = 0
		}
	}
}

// listenOnce reports whether the connection was made.
func (b *postgres) listenOnce(ctx context.Context, ring func(id int64)) bool {
	c, err := pgx.ConnectConfig(ctx, b.config)
	if err != nil {
		return false
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = c.Close(closing) // nothing is lost with it
	}()
	if _, err := c.Exec(ctx, `LISTEN `+channel); err != nil {
		return false
	}
	ring(0)
	for {
		// A peer that went without a word is found by asking.
		heard, cancel := context.WithTimeout(ctx, 30*time.Second)
		n, err := c.WaitForNotification(heard)
		cancel()
		switch {
		case err == nil:
			id, _ := strconv.ParseInt(n.Payload, 10, 64) // what is no number may be anything
			ring(id)
		case ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded):
			asked, cancel := context.WithTimeout(ctx, 5*time.Second)
			err = c.Ping(asked)
			cancel()
			if err != nil {
				return true
			}
		default:
			return true
		}
	}
}

func (b *postgres) backup(context.Context, *sql.DB, string) error {
	return errors.New("the registry is in PostgreSQL: use pg_dump, or the database's own backups")
}

// check reads every row of every table; the rest is pg_amcheck's.
func (b *postgres) check(ctx context.Context, db *sql.DB) error {
	for _, table := range []string{"hosts", "host_macs", "orders", "order_tokens", "offers", "events", "counters", "tokens", "leases", "settings"} {
		var n int64
		if err := db.QueryRowContext(ctx, `SELECT COUNT(t::text) FROM `+table+` t`).Scan(&n); err != nil {
			return fmt.Errorf("read table %s: %w", table, &databaseError{err})
		}
	}
	return nil
}

// explain knows PostgreSQL's error classes (its manual, appendix A).
func (b *postgres) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil // the caller has gone
	}
	where := fmt.Sprintf("%s on %s", b.config.Database, net.JoinHostPort(b.config.Host, strconv.Itoa(int(b.config.Port))))
	var connect *pgconn.ConnectError
	if errors.As(err, &connect) {
		return fmt.Errorf("PostgreSQL does not let us in to %s (%w): check that it runs, its address and the user's rights", where, err)
	}
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		if errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("PostgreSQL did not answer in time for %s (%w)", where, err)
		}
		var broken *databaseError
		if errors.As(err, &broken) { // what PostgreSQL itself has to say is a PgError
			return fmt.Errorf("the connection to PostgreSQL's %s broke (%w); whether the last change was stored is not known", where, err)
		}
		return nil
	}
	switch {
	case e.Code == "53100":
		return fmt.Errorf("the disk of PostgreSQL's %s is full (%w): make room; nothing that was acknowledged is lost", where, err)
	case e.Code == "25006":
		return fmt.Errorf("PostgreSQL's %s is read-only (%w): name the primary server", where, err)
	case strings.HasPrefix(e.Code, "08"), strings.HasPrefix(e.Code, "57P"):
		return fmt.Errorf("PostgreSQL's %s is going down or coming up (%w)", where, err)
	case strings.HasPrefix(e.Code, "53"), strings.HasPrefix(e.Code, "58"), strings.HasPrefix(e.Code, "XX"), e.Code == "57014", e.Code == "25P03", e.Code == "42501":
		return fmt.Errorf("PostgreSQL's %s cannot do it (%w): see its log", where, err)
	}
	return nil
}
