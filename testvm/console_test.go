package testvm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func testConsole(t *testing.T, cc ConsoleConfig) (*Console, net.Conn) {
	t.Helper()
	ours, theirs := net.Pipe()
	c, err := newConsole(ours, cc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close(); c.Close() })
	return c, theirs
}

func TestTextIsTakenOutOfTerminalOutput(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"colours and bracketed paste go", "\x1b[0;32m OK \x1b[0m\x1b[?2004hx\r\n", " OK x\n"},
		{"a window title goes", "\x1b]0;root@host:~\x07# \x1b]2;x\x1b\\y", "# y"},
		{"a character set goes", "\x1b(Ba\x1b)0b", "ab"},
		{"a redrawn line is a new line", "10%\r20%\r30%\r\n", "10%\n20%\n30%\n"},
		{"two carriage returns before a line feed are one line's end", "a\r\r\nb", "a\nb"},
		{"a line feed before a carriage return is one line's end", "a\n\rb", "a\nb"},
		{"moving the cursor begins a new line", "menu\x1b[01;01Hentry\x1b[2Jx", "menu\nentryx"},
		{"bells and zeros go, tabs stay", "a\x07\x00\tb", "a\tb"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var whole, single textFilter
			got := string(whole.append(nil, []byte(tt.in)))
			var bytewise []byte
			for i := range len(tt.in) {
				bytewise = single.append(bytewise, []byte{tt.in[i]})
			}
			if got != tt.want || string(bytewise) != tt.want {
				t.Errorf("got %q at once and %q byte for byte, want %q", got, bytewise, tt.want)
			}
		})
	}
}

func FuzzTextFilter(f *testing.F) {
	f.Add([]byte("\x1b[0;32m OK \x1b]0;x\x1b\\\r\n\x1b(B\r"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if cut < 0 || cut > len(b) {
			cut = len(b) / 2
		}
		var one, two textFilter
		whole := string(one.append(nil, b))
		parts := string(two.append(two.append(nil, b[:cut]), b[cut:]))
		if whole != parts {
			t.Errorf("%q at once, %q in two writes", whole, parts)
		}
		if strings.ContainsAny(whole, "\x1b\r\x00\x7f") {
			t.Errorf("control characters remain in %q", whole)
		}
	})
}

func TestExpectReadsACannedBoot(t *testing.T) {
	transcript := filepath.Join(t.TempDir(), "t")
	var live strings.Builder
	c, machine := testConsole(t, ConsoleConfig{Transcript: transcript, Live: &live})
	raw := "SeaBIOS\r\n\x1b[2Jimgbuild: step 1/9 manifest\r\nimgbuild: rootfs 4"
	go func() {
		machine.Write([]byte(raw))
		machine.Write([]byte("3% of 9\r\nimgbuild: failed: it broke\r\n"))
	}()
	step, failed := regexp.MustCompile(`^imgbuild: step (\d+)/(\d+) (.*)$`), regexp.MustCompile(`^imgbuild: failed: (.*)$`)
	m, err := c.Expect(t.Context(), failed, step)
	if err != nil || m.Index != 1 || m.Groups[1] != "1" || m.Groups[3] != "manifest" || m.Before != "SeaBIOS\n" {
		t.Fatalf("got %+v, %v", m, err)
	}
	m, err = c.Expect(t.Context(), failed, step)
	if err != nil || m.Index != 0 || m.Groups[1] != "it broke" || !strings.Contains(m.Before, "rootfs 43% of 9") {
		t.Fatalf("got %+v, %v", m, err)
	}
	machine.Close()
	if _, err := c.Expect(t.Context(), step); !errors.Is(err, ErrConsoleClosed) || !strings.Contains(err.Error(), "it broke") {
		t.Errorf("after the end: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(transcript); !strings.HasPrefix(string(b), raw) {
		t.Errorf("transcript %q", b)
	}
	if !strings.HasPrefix(live.String(), "SeaBIOS\nimgbuild: step") {
		t.Errorf("live text %q", live.String())
	}
}

func TestExpectEndsWithItsContextAndShowsTheLastLines(t *testing.T) {
	c, machine := testConsole(t, ConsoleConfig{})
	go machine.Write([]byte("one\r\n\r\ntwo"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Expect(ctx, regexp.MustCompile(`never`))
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "one\ntwo") {
		t.Errorf("got %v", err)
	}
}

// fakeGetty is the other end of a serial line: a login prompt and a shell that knows the answers to some commands. It
// echoes, wraps its echo, and lets a kernel write behind its prompts, as real ones do.
func fakeGetty(conn net.Conn, password string, answers map[string]string) {
	in := bufio.NewReader(conn)
	read := func() string { l, _ := in.ReadString('\n'); return strings.TrimSuffix(l, "\n") }
	fmt.Fprint(conn, "Stand-in 9\r\nLast boot ok\r\n\r\nhost login: [   12.3] random: crng init done\r\n")
	read()
	fmt.Fprint(conn, "root\r\nPassword: ")
	if read() != password {
		fmt.Fprint(conn, "\r\nLogin incorrect\r\n\r\nhost login: ")
		return
	}
	fmt.Fprint(conn, "\r\nLast login: never\r\n\x1b[?2004h[root@host ~]# ")
	read()
	run := regexp.MustCompile(`^ printf '([^']*)' (\S+) begin; \( (.*) \) </dev/null 2>&1; printf '([^']*)' \S+ end \$\?$`)
	for {
		line := read()
		if line == "" {
			return
		}
		for i := 0; i < len(line); i += 80 {
			fmt.Fprintf(conn, "%s \r", line[i:min(i+80, len(line))])
		}
		m := run.FindStringSubmatch(line)
		if m == nil {
			fmt.Fprint(conn, "\r\nsyntax error\r\n")
			continue
		}
		out, status := answers[m[3]], 0
		if m[3] == "false" {
			status = 1
		}
		fmt.Fprintf(conn, "\r\n\r\n@%s@begin@\r\n%s\r\n@%s@end@%d@\r\n", m[2], out, m[2], status)
	}
}

func TestLoginAndRunOverASerialLine(t *testing.T) {
	c, machine := testConsole(t, ConsoleConfig{})
	go fakeGetty(machine, "secret", map[string]string{"uname -r": "6.1.0", "two": "a\r\n\r\nb\r\n", "cut": "no newline"})
	if err := c.Login(t.Context(), "root", "secret"); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		command, output string
		status          int
	}{{"uname -r", "6.1.0", 0}, {"two", "a\n\nb", 0}, {"false", "", 1}, {"cut", "no newline", 0}} {
		out, status, err := c.Run(t.Context(), tt.command)
		if err != nil || out != tt.output || status != tt.status {
			t.Errorf("%s: got %q, %d, %v", tt.command, out, status, err)
		}
	}
	if _, _, err := c.Run(t.Context(), "two\nlines"); err == nil {
		t.Error("a command of two lines was taken")
	}
}

func TestAWrongPasswordIsSaidSo(t *testing.T) {
	c, machine := testConsole(t, ConsoleConfig{})
	go fakeGetty(machine, "secret", nil)
	var wrong ErrLogin
	if err := c.Login(t.Context(), "root", "guess"); !errors.As(err, &wrong) {
		t.Errorf("got %v", err)
	}
}
