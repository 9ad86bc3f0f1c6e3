package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// maxBatch bounds how many writes share one commit.
const maxBatch = 128

// errClosed is what a write to a closed registry gets.
var errClosed = errors.New("the registry is closed")

// job is one write that waits for its turn.
type job struct {
	ctx      context.Context
	run      func(context.Context, *tx) error
	err      error
	panicked any
	done     chan struct{}
}

// write runs f as one transaction: all of it or nothing, on the disk when write returns. All writes of a process go through
// one connection, in turn. Those that come while another is being committed share the next commit, each behind a savepoint
// of its own: a disk that can do 100 commits a second takes thousands of writes.
func (s *Store) write(ctx context.Context, what string, f func(context.Context, *tx) error) error {
	j := &job{ctx: ctx, run: f, done: make(chan struct{})}
	select {
	case s.jobs <- j:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", what, context.Cause(ctx))
	case <-s.closing:
		return fmt.Errorf("%s: %w", what, errClosed)
	}
	<-j.done // soon: a write whose caller has gone is passed over, and a transaction has a time limit
	if j.panicked != nil {
		panic(j.panicked)
	}
	return s.failed(what, j.err)
}

// writeLoop is the one writer. It ends with Close.
func (s *Store) writeLoop() {
	for {
		var batch []*job
		select {
		case j := <-s.jobs:
			batch = append(batch, j)
		case <-s.closing:
			return
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case j := <-s.jobs:
				batch = append(batch, j)
			default:
				more = false
			}
		}
		s.commit(batch)
		for _, j := range batch {
			close(j.done)
		}
	}
}

// commit carries out a batch in one transaction.
func (s *Store) commit(batch []*job) {
	ctx, cancel := s.limit(context.Background()) // a caller that goes away does not take the others' writes with it
	defer cancel()
	fail := func(err error) {
		for _, j := range batch {
			if j.err == nil && j.panicked == nil {
				j.err = err
			}
		}
	}
	dbtx, err := s.writer.BeginTx(ctx, nil)
	if err != nil {
		fail(&databaseError{err})
		return
	}
	defer dbtx.Rollback() // after a commit it does nothing
	if err := s.backend.lock(ctx, dbtx); err != nil {
		fail(&databaseError{err})
		return
	}
	t := &tx{q: dbtx, b: s.backend, now: s.clock()}
	var last int64
	stored, marked := false, false
	for _, j := range batch {
		if j.err = context.Cause(j.ctx); j.err != nil {
			continue
		}
		if len(batch) > 1 {
			if err := s.backend.mark(ctx, dbtx, marked); err != nil {
				fail(&databaseError{err})
				return
			}
			marked = true
		}
		if j.attempt(ctx, t) {
			stored, last = true, max(last, t.last)
			continue
		}
		if marked {
			if _, err := t.exec(ctx, `ROLLBACK TO SAVEPOINT one`); err != nil {
				fail(errors.Join(j.err, err)) // the transaction is gone, and what was written in it before
				return
			}
		}
	}
	if !stored {
		return
	}
	if last > 0 {
		if err := s.backend.notify(ctx, t, last); err != nil {
			fail(err)
			return
		}
	}
	if err := dbtx.Commit(); err != nil {
		fail(fmt.Errorf("commit: %w", &databaseError{err}))
		return
	}
	if last > 0 {
		s.bell.ring(last)
	}
}

// attempt runs one write of a batch, and reports whether it may be committed.
func (j *job) attempt(ctx context.Context, t *tx) bool {
	t.events, t.last = nil, 0
	defer func() { j.panicked = recover() }()
	if j.err = j.run(ctx, t); j.err == nil {
		j.err = t.flush(ctx)
	}
	return j.err == nil
}

// read runs f on one state of everything.
func (s *Store) read(ctx context.Context, what string, f func(context.Context, *tx) error) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	dbtx, err := s.reader.BeginTx(ctx, s.backend.readTx())
	if err != nil {
		return s.failed(what, &databaseError{err})
	}
	defer dbtx.Rollback()
	return s.failed(what, f(ctx, &tx{q: dbtx, b: s.backend, now: s.clock()}))
}

// ask runs f, which asks one question, without a transaction around it.
func (s *Store) ask(ctx context.Context, what string, f func(context.Context, *tx) error) error {
	ctx, cancel := s.limit(ctx)
	defer cancel()
	return s.failed(what, f(ctx, &tx{q: s.reader, b: s.backend, now: s.clock()}))
}

func (s *Store) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if d := s.backend.timeout(); d > 0 {
		return context.WithTimeout(ctx, d)
	}
	return ctx, func() {}
}

// databaseError is an error that came from the database or its driver.
type databaseError struct{ err error }

func (e *databaseError) Error() string { return e.err.Error() }
func (e *databaseError) Unwrap() error { return e.err }

// tx is a transaction, or for a single question a connection.
type tx struct {
	q interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	}
	b      backend
	now    time.Time
	events []Event // to be stored at the end
	last   int64   // ID of the last one stored
}

// exec returns how many rows were changed.
func (t *tx) exec(ctx context.Context, query string, args ...any) (int64, error) {
	r, err := t.q.ExecContext(ctx, t.b.bind(query), args...)
	if err != nil {
		return 0, &databaseError{err}
	}
	return r.RowsAffected()
}

// number is the one number that a query answers with; 0 where there is none.
func (t *tx) number(ctx context.Context, query string, args ...any) (int64, error) {
	n, err := first(ctx, t, func(row scanner) (n int64, err error) { return n, row.Scan(&n) }, query, args...)
	if n == nil {
		return 0, err
	}
	return *n, err
}

// scanner is a row.
type scanner interface{ Scan(dest ...any) error }

// all reads the rows that a query answers with.
func all[T any](ctx context.Context, t *tx, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := t.q.QueryContext(ctx, t.b.bind(query), args...)
	if err != nil {
		return nil, &databaseError{err}
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, &databaseError{err}
	}
	return list, nil
}

// first reads the first row, or returns nil.
func first[T any](ctx context.Context, t *tx, scan func(scanner) (T, error), query string, args ...any) (*T, error) {
	list, err := all(ctx, t, scan, query, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

// next counts a counter up by n and returns its new value.
func (t *tx) next(ctx context.Context, counter string, n int) (int64, error) {
	return t.number(ctx, `UPDATE counters SET value = value + ? WHERE name = ? RETURNING value`, n, counter)
}

// stamp is a time as it is stored: microseconds since 1970, 0 for none.
func stamp(at time.Time) int64 {
	if at.IsZero() {
		return 0
	}
	return at.UnixMicro()
}

// moment is what stamp stored.
func moment(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
