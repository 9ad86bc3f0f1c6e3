package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Store is the registry's database. All methods are safe for many goroutines; with PostgreSQL several servers share one
// database. What a method has acknowledged is on the disk.
type Store struct {
	backend backend
	writer  *sql.DB
	reader  *sql.DB
	clock   func() time.Time // for methods that are not told the time

	jobs    chan *job
	closing chan struct{}

	mu     sync.Mutex // of closed, and of beginning to wait for ended
	closed bool
	ended  sync.WaitGroup

	bell      bell
	listening sync.Once
}

// backend is what SQLite and PostgreSQL do differently.
type backend interface {
	// open returns the connections for writing and for reading; they may be the same.
	open(ctx context.Context) (writer, reader *sql.DB, err error)
	// ddl and bind turn this package's SQL into the database's.
	ddl(statements string) string
	bind(query string) string
	// lock makes a writing transaction the only one until it ends.
	lock(ctx context.Context, tx *sql.Tx) error
	// mark sets the savepoint called one, in place of the one that is set.
	mark(ctx context.Context, tx *sql.Tx, set bool) error
	// readTx are the options of a transaction that sees one state of everything.
	readTx() *sql.TxOptions
	// notify tells other servers, with the transaction's end, of events up to id.
	notify(ctx context.Context, tx *tx, id int64) error
	// listen rings for other servers' events, with the ID of the newest or 0 if that is not known, until the context ends.
	listen(ctx context.Context, ring func(id int64))
	// explain says in people's words what is wrong with the database, or returns nil.
	explain(err error) error
	backup(ctx context.Context, db *sql.DB, path string) error
	check(ctx context.Context, db *sql.DB) error
	// timeout bounds one transaction; 0 is no bound.
	timeout() time.Duration
}

// ErrUnavailable is in every error whose cause is the database itself: it does not answer, is full, read-only or damaged.
// Whatever was to be stored has to be sent again.
var ErrUnavailable = errors.New("the registry's database cannot be used")

// Open opens the registry: a path, for SQLite, or postgres://…. The schema is made, or brought up to this program's.
func Open(ctx context.Context, dsn string) (*Store, error) {
	s := &Store{clock: time.Now, jobs: make(chan *job), closing: make(chan struct{})}
	if strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://") {
		p, err := newPostgres(dsn)
		if err != nil {
			return nil, err
		}
		s.backend = p
	} else {
		if dsn == "" {
			return nil, errors.New("open registry: no database is named: give a path, or postgres://…")
		}
		s.backend = &sqlite{path: dsn}
	}
	err := func() (err error) {
		if s.writer, s.reader, err = s.backend.open(ctx); err != nil {
			return err
		}
		return s.migrate(ctx)
	}()
	if err != nil {
		s.closeConnections()
		return nil, s.failed("open registry "+redact(dsn), err)
	}
	s.begin(s.writeLoop)
	return s, nil
}

// redact takes the password out of a connection string.
func redact(dsn string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return dsn
	}
	q := u.Query()
	if q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// Close ends what is under way, and all watches.
func (s *Store) Close() error {
	s.mu.Lock()
	if !s.closed {
		s.closed = true
		close(s.closing)
	}
	s.mu.Unlock()
	s.ended.Wait()
	return s.closeConnections()
}

// begin starts a goroutine that ends when closing is closed. It reports whether the registry is open.
func (s *Store) begin(f func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.ended.Go(f)
	}
	return !s.closed
}

func (s *Store) closeConnections() error {
	var errs []error
	if s.reader != nil && s.reader != s.writer {
		errs = append(errs, s.reader.Close())
	}
	if s.writer != nil {
		errs = append(errs, s.writer.Close()) // last: SQLite's then folds the log into the file
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close registry: %w", err)
	}
	return nil
}

// Ping says whether the database answers.
func (s *Store) Ping(ctx context.Context) error {
	return s.read(ctx, "ask registry", func(ctx context.Context, t *tx) error {
		_, err := t.number(ctx, `SELECT value FROM counters WHERE name = 'event'`)
		return err
	})
}

// Backup copies the registry into a new file while it is in use. With PostgreSQL it says what to use instead.
func (s *Store) Backup(ctx context.Context, path string) error {
	return s.failed("back up registry to "+path, s.backend.backup(ctx, s.reader, path))
}

// Check reads the whole database and says what is damaged.
func (s *Store) Check(ctx context.Context) error {
	return s.failed("check registry", s.backend.check(ctx, s.reader))
}

// failed says what was being done, and of an error of the database what it means.
func (s *Store) failed(what string, err error) error {
	if err == nil {
		return nil
	}
	if told := s.backend.explain(err); told != nil {
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, told)
	}
	return fmt.Errorf("%s: %w", what, err)
}
