package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"imgbuild/image/plan"
	"imgbuild/server/ctl/ctltest"
	"imgbuild/server/registry"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"imgctl": main})
}

type serverKey struct{}

// comingKey is where a script keeps the machine that is to come.
type comingKey struct{}

// TestCommands runs the program as a person would, against a real server of its own for each script. Scripts have more
// commands: machine SN ACTION [TEXT [N OF]] plays a machine, comes SN ACTION [TEXT] has one boot and play when it is ordered next,
// which came waits for, and as ROLE takes another token.
func TestCommands(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			s := ctltest.Start(t)
			e.Values[serverKey{}] = s
			e.Values[comingKey{}] = make(chan error, 1)
			e.Defer(s.Stop)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("TZ", "UTC")
			e.Setenv("IMGCTL_SERVER", s.URL)
			e.Setenv("IMGCTL_TOKEN", s.Tokens[registry.RoleOperate])
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"machine": machine,
			"comes":   comes,
			"came":    came,
			"code":    exits,
			"as": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("IMGCTL_TOKEN", ts.Value(serverKey{}).(*ctltest.Server).Tokens[registry.Role(args[0])])
			},
			"secret": func(ts *testscript.TestScript, _ bool, args []string) { // secret ROLE FILE MODE
				s := ts.Value(serverKey{}).(*ctltest.Server)
				mode, err := strconv.ParseUint(args[2], 8, 32)
				ts.Check(err)
				path := filepath.Join(ts.Getenv("WORK"), args[1])
				ts.Check(os.WriteFile(path, []byte(s.Tokens[registry.Role(args[0])]+"\n"), 0o600))
				ts.Check(os.Chmod(path, os.FileMode(mode)))
			},
		},
	})
}

func machine(ts *testscript.TestScript, neg bool, args []string) {
	var e plan.Event
	if len(args) > 2 {
		e.Text = args[2]
	}
	if len(args) > 4 {
		n, err := strconv.Atoi(args[3])
		ts.Check(err)
		of, err := strconv.Atoi(args[4])
		ts.Check(err)
		e.Step, e.Of, e.Done, e.Total = n, of, int64(n), int64(of)
	}
	_, err := ts.Value(serverKey{}).(*ctltest.Server).Machine(context.Background(), args[0], args[1], e)
	if neg != (err != nil) {
		ts.Fatalf("machine %v: %v", args, err)
	}
}

func comes(ts *testscript.TestScript, _ bool, args []string) {
	s := ts.Value(serverKey{}).(*ctltest.Server)
	ctx, cancel := context.WithCancel(context.Background())
	ts.Defer(cancel)
	events := s.Store.Watch(ctx, -1)
	go func() {
		ts.Value(comingKey{}).(chan error) <- func() error {
			for e := range events {
				if e.SN != args[0] || e.Kind != "ordered" {
					continue
				}
				if _, err := s.Machine(ctx, args[0], "boot", plan.Event{}); err != nil {
					return err
				}
				_, err := s.Machine(ctx, args[0], args[1], plan.Event{Text: args[2]})
				return err
			}
			return errors.New("nobody has ordered it")
		}()
	}()
}

func came(ts *testscript.TestScript, _ bool, _ []string) {
	ts.Check(<-ts.Value(comingKey{}).(chan error))
}

// exits runs a command and demands its exit code: code N COMMAND...
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%v: exit code %d, want %s", args[1:], got, args[0])
	}
}
