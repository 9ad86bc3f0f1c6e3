//go:build integration

package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// cluster is a PostgreSQL server of the tests' own, on a socket in a directory of its own.
type cluster struct {
	bin, dir string
	as       *syscall.SysProcAttr
	server   *exec.Cmd
	n        atomic.Int64 // databases
}

// theCluster is started by the first test that wants it; stopCluster ends it.
var theCluster = sync.OnceValues(startCluster)

var clusterStarted atomic.Bool

// stopCluster is TestMain's.
func stopCluster() {
	if !clusterStarted.Load() {
		return
	}
	if c, err := theCluster(); err == nil {
		c.stop(syscall.SIGQUIT)
		os.RemoveAll(c.dir)
	}
}

func startCluster() (*cluster, error) {
	clusterStarted.Store(true)
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian's
	if path, lookErr := exec.LookPath("initdb"); lookErr == nil {
		found = append(found, path)
	}
	if err != nil || len(found) == 0 {
		return nil, errors.New("there is no initdb: install postgresql (EL: postgresql-server)")
	}
	c := &cluster{bin: filepath.Dir(found[len(found)-1]), as: &syscall.SysProcAttr{}}
	if c.dir, err = os.MkdirTemp("", "pg"); err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 { // initdb refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			if u, err = user.Lookup("nobody"); err != nil {
				return nil, err
			}
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		c.as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(c.dir, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	// A collation that does not order by bytes shows whether the store's own does.
	init := exec.Command(filepath.Join(c.bin, "initdb"), "-D", filepath.Join(c.dir, "data"), "-U", "imgbuild", "--auth=trust", "--encoding=UTF8", "--no-sync",
		"--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US")
	init.SysProcAttr, init.Dir = c.as, c.dir
	if out, err := init.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return c, c.start()
}

// start waits until the server says that it is ready.
func (c *cluster) start() error {
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), "-D", filepath.Join(c.dir, "data"), "-k", c.dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=200")
	cmd.SysProcAttr, cmd.Dir = c.as, c.dir
	log, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		var said strings.Builder
		lines := bufio.NewScanner(log)
		for told := false; lines.Scan(); {
			said.WriteString(lines.Text() + "\n")
			if !told && strings.Contains(lines.Text(), "ready to accept connections") {
				told = true
				ready <- nil
			}
		}
		ready <- errors.New("postgres ended: " + said.String())
	}()
	c.server = cmd
	return <-ready
}

// stop ends the server: SIGQUIT as a crash, SIGINT at once but in order.
func (c *cluster) stop(s syscall.Signal) {
	_ = c.server.Process.Signal(s)
	_ = c.server.Wait()
}

// admin runs statements as the server's owner.
func (c *cluster) admin(t testing.TB, database string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), c.dsn(database))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatal(s, err)
		}
	}
}

func (c *cluster) dsn(database string) string {
	return "postgres://imgbuild@/" + database + "?host=" + url.QueryEscape(c.dir)
}

func needCluster(t testing.TB) *cluster {
	t.Helper()
	c, err := theCluster()
	if err != nil {
		if strings.Contains(err.Error(), "there is no initdb") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	return c
}

// postgresDSN makes an empty database.
func postgresDSN(t testing.TB) string {
	t.Helper()
	c := needCluster(t)
	name := fmt.Sprintf("test%d", c.n.Add(1))
	c.admin(t, "postgres", "CREATE DATABASE "+name)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), c.dsn("postgres"))
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(context.Background(), "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	return c.dsn(name)
}

func TestOfTwoServersOneConsumesAnOrder(t *testing.T) {
	dsn := postgresDSN(t)
	a, b := openAt(t, dsn), openAt(t, dsn)
	oneOfManyConsumes(t, a, b)
}

func TestEventsOfOneServerAreWatchedAtAnother(t *testing.T) {
	dsn := postgresDSN(t)
	stores := []*Store{openAt(t, dsn), openAt(t, dsn), openAt(t, dsn)}
	const each = 300
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch := stores[2].Watch(ctx, 0)
	var wg sync.WaitGroup
	for i, s := range stores[:2] {
		for j := range 5 {
			wg.Go(func() {
				for k := range each / 5 {
					if err := s.Append(ctx, Event{Kind: "info", Text: fmt.Sprintf("%d/%d/%d", i, j, k)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	seen, last := map[string]bool{}, int64(0)
	for len(seen) < 2*each {
		e, ok := <-watch
		if !ok {
			t.Fatalf("the watch ended after %d events", len(seen))
		}
		if e.ID != last+1 || seen[e.Text] {
			t.Fatalf("event %d %s came after %d", e.ID, e.Text, last)
		}
		last, seen[e.Text] = e.ID, true
	}
	wg.Wait()
	if err := stores[0].Append(ctx, Event{Kind: "info", Text: "the last"}); err != nil {
		t.Fatal(err)
	}
	if e := <-watch; e.Text != "the last" {
		t.Errorf("got %+v", e)
	}
}

func TestADatabaseThatDiesAndComesBackLosesNothing(t *testing.T) {
	c := needCluster(t)
	dsn := postgresDSN(t)
	s, other := openAt(t, dsn), openAt(t, dsn)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	watch := other.Watch(ctx, 0)
	type outcome struct {
		text string
		err  error
	}
	outcomes := make(chan outcome)
	enough, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := 0; enough.Err() == nil; n++ {
				text := fmt.Sprintf("%d/%d", i, n)
				outcomes <- outcome{text, s.Append(ctx, Event{Kind: "info", Text: text})}
			}
		})
	}
	go func() {
		wg.Wait()
		close(outcomes)
	}()
	var acknowledged []string
	refused, crashes, up := 0, 0, true
	for good, bad := 0, 0; ; {
		o, more := <-outcomes
		if !more {
			break
		}
		switch {
		case o.err == nil:
			acknowledged = append(acknowledged, o.text)
			good++
		case errors.Is(o.err, ErrUnavailable):
			refused++
			bad++
		default:
			t.Error(o.err)
		}
		switch {
		case up && good > 200 && crashes == 3:
			stop()
		case up && good > 200:
			c.stop(syscall.SIGQUIT) // a crash
			up, good, bad = false, 0, 0
			crashes++
		case !up && bad > 50:
			if err := s.Ping(ctx); !errors.Is(err, ErrUnavailable) {
				t.Errorf("without a server Ping says %v", err)
			}
			if err := c.start(); err != nil {
				t.Fatal(err)
			}
			up, good, bad = true, 0, 0
		}
	}
	stop()
	have := map[string]int{}
	list, err := s.Events(ctx, EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		have[e.Text]++
	}
	for _, text := range acknowledged {
		if have[text] != 1 {
			t.Errorf("%s was acknowledged, and is there %d times", text, have[text])
		}
	}
	for _, e := range list {
		if got := <-watch; got.ID != e.ID {
			t.Fatalf("the watch of the other server gives %d where %d comes next", got.ID, e.ID)
		}
	}
	t.Logf("%d writes acknowledged, %d refused, in %d crashes", len(acknowledged), refused, crashes)
}

func TestWhatPostgreSQLRefusesIsSaidInWords(t *testing.T) {
	c := needCluster(t)
	t.Run("a database that is not there", func(t *testing.T) {
		_, err := Open(t.Context(), c.dsn("nobody"))
		wantUnavailable(t, err, `database "nobody" does not exist`)
	})
	t.Run("a server that is not there", func(t *testing.T) {
		_, err := Open(t.Context(), "postgres://imgbuild:geheim@/x?host="+url.QueryEscape(t.TempDir()))
		wantUnavailable(t, err, "check that it runs")
		if strings.Contains(err.Error(), "geheim") {
			t.Error("the password is in the message")
		}
	})
	t.Run("a database that others use", func(t *testing.T) {
		dsn := postgresDSN(t)
		u, _ := url.Parse(dsn)
		c.admin(t, strings.TrimPrefix(u.Path, "/"), "CREATE TABLE hosts (id int)")
		if _, err := Open(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), "needs a database of its own") {
			t.Error(err)
		}
	})
	t.Run("one that turns read-only", func(t *testing.T) {
		dsn := postgresDSN(t)
		s := openAt(t, dsn)
		u, _ := url.Parse(dsn)
		name := strings.TrimPrefix(u.Path, "/")
		c.admin(t, name, "ALTER DATABASE "+name+" SET default_transaction_read_only = on")
		c.admin(t, name, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '"+name+"' AND pid <> pg_backend_pid()")
		wantUnavailable(t, retry(func() error { return s.Append(t.Context(), Event{Kind: "info"}) }), "")
	})
	t.Run("a newer schema", func(t *testing.T) {
		dsn := postgresDSN(t)
		s := openAt(t, dsn)
		newerSchema(t, s)
		if _, err := Open(t.Context(), dsn); err == nil || !strings.Contains(err.Error(), "its schema is 99") {
			t.Error(err)
		}
	})
	t.Run("a backup", func(t *testing.T) {
		s := openAt(t, postgresDSN(t))
		if err := s.Backup(t.Context(), filepath.Join(t.TempDir(), "b")); err == nil || !strings.Contains(err.Error(), "pg_dump") {
			t.Error(err)
		}
		if err := s.Check(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// retry lets connections that were cut be noticed: the first write after that may say so.
func retry(f func() error) error {
	if err := f(); err != nil {
		return err
	}
	return f()
}

func TestAServerThatIsFrozenHoldsTheOthersUpForABoundedTime(t *testing.T) {
	dsn := postgresDSN(t)
	frozen, err := newPostgres(dsn + "&idle_in_transaction_session_timeout=700ms")
	if err != nil {
		t.Fatal(err)
	}
	db, _, err := frozen.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback()
	s := openAt(t, dsn)
	if err := frozen.lock(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), Event{Kind: "info", Text: "after all"}); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(); err == nil {
		t.Error("the frozen server's transaction is still there")
	}
}
