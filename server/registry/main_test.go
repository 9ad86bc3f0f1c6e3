package registry

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestMain lets this program be the server that is killed, too.
func TestMain(m *testing.M) {
	if path := os.Getenv("REGISTRY_WRITER"); path != "" {
		os.Exit(writer(path))
	}
	code := m.Run()
	stopCluster()
	os.Exit(code)
}

// writer appends events for as long as it lives, and says which are acknowledged.
func writer(path string) int {
	s, err := Open(context.Background(), path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := 0; ; n++ {
				text := fmt.Sprintf("%d-%d-%d", os.Getpid(), i, n)
				if err := s.Append(context.Background(), Event{Kind: "info", Text: text}); err != nil {
					fmt.Fprintln(os.Stderr, err)
					return
				}
				fmt.Println(text)
			}
		})
	}
	wg.Wait()
	return 1
}

func TestWhatAKilledServerHasAcknowledgedIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registry.db")
	acknowledged := map[string]bool{}
	for range 4 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "REGISTRY_WRITER="+path)
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); n++ {
			acknowledged[lines.Text()] = true
			if n == 50 {
				_ = cmd.Process.Kill() // SIGKILL; what it had said until then is still read
			}
		}
		_ = cmd.Wait()
		if said.Len() > 0 {
			t.Fatal(said.String())
		}
	}
	s := openAt(t, path)
	if err := s.Check(t.Context()); err != nil {
		t.Error(err)
	}
	list, err := s.Events(t.Context(), EventFilter{})
	if err != nil {
		t.Fatal(err)
	}
	for i, e := range list {
		if e.ID != int64(i+1) {
			t.Fatalf("event %d has the ID %d", i+1, e.ID)
		}
		delete(acknowledged, e.Text)
	}
	if len(acknowledged) > 0 || len(list) < 200 {
		t.Errorf("of %d events %d are lost that were acknowledged", len(list), len(acknowledged))
	}
}
