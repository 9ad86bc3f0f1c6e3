package registry

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
)

// maxStatements bounds how many prepared statements a connection keeps; this package has some hundred queries, and those
// with lists of several lengths.
const maxStatements = 256

// preparing makes connections that keep the statements that they have prepared. SQLite's driver prepares each query anew,
// which takes a third of the time of most; PostgreSQL's keeps them itself.
type preparing struct{ driver.Connector }

// driverConn is what database/sql uses of the driver's connections.
type driverConn interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.ConnBeginTx
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

func (p preparing) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	d, ok := c.(driverConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the database driver's connection %T cannot do what is needed of it", c), c.Close())
	}
	return &preparedConn{driverConn: d, idle: map[string]statement{}}, nil
}

// statement is a prepared statement of the driver.
type statement interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// preparedConn is a connection with its prepared statements. Like every connection of database/sql it is used by one
// goroutine at a time.
type preparedConn struct {
	driverConn
	idle map[string]statement // by query; one that is in use is not there
}

// keeps reports whether a statement may be run a second time without being prepared again. PRAGMA may not: some act when they
// are prepared.
func keeps(query string) bool {
	verb, _, _ := strings.Cut(query, " ")
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "SAVEPOINT", "RELEASE", "ROLLBACK":
		return true
	}
	return false
}

// take returns the query's statement, which is the caller's until give.
func (c *preparedConn) take(ctx context.Context, query string) (statement, error) {
	if s := c.idle[query]; s != nil {
		delete(c.idle, query)
		return s, nil
	}
	p, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s, ok := p.(statement)
	if !ok {
		return nil, errors.Join(fmt.Errorf("the database driver's statement %T cannot do what is needed of it", p), p.Close())
	}
	return s, nil
}

// give takes a statement back. One that failed is not used again.
func (c *preparedConn) give(query string, s statement, failed bool) error {
	if failed || c.idle[query] != nil {
		return s.Close()
	}
	if len(c.idle) >= maxStatements {
		for q, old := range c.idle { // any
			delete(c.idle, q)
			if err := old.Close(); err != nil {
				return errors.Join(err, s.Close())
			}
			break
		}
	}
	c.idle[query] = s
	return nil
}

// ExecContext is part of driver.ExecerContext.
func (c *preparedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !keeps(query) {
		return c.driverConn.ExecContext(ctx, query, args)
	}
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := s.ExecContext(ctx, args)
	if e := c.give(query, s, err != nil); err == nil {
		err = e
	}
	return r, err
}

// QueryContext is part of driver.QueryerContext.
func (c *preparedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !keeps(query) {
		return c.driverConn.QueryContext(ctx, query, args)
	}
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	r, err := s.QueryContext(ctx, args)
	if err != nil {
		_ = c.give(query, s, true) // what went wrong first counts
		return nil, err
	}
	return &preparedRows{Rows: r, give: func(failed bool) error { return c.give(query, s, failed) }}, nil
}

// Close is part of driver.Conn.
func (c *preparedConn) Close() error {
	var errs []error
	for _, s := range c.idle {
		errs = append(errs, s.Close())
	}
	clear(c.idle)
	return errors.Join(append(errs, c.driverConn.Close())...)
}

// preparedRows give their statement back when they are closed.
type preparedRows struct {
	driver.Rows
	give func(failed bool) error
}

// Close is part of driver.Rows.
func (r *preparedRows) Close() error {
	err := r.Rows.Close()
	if r.give == nil {
		return err
	}
	give := r.give
	r.give = nil
	if e := give(err != nil); err == nil {
		err = e
	}
	return err
}
