package testvm

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// maxCommand is the longest line that a Linux terminal takes in line mode (N_TTY), less what Run puts around it.
const maxCommand = 3900

// ErrLogin is returned when a machine does not take the user and password.
type ErrLogin struct{ User string }

func (e ErrLogin) Error() string {
	return fmt.Sprintf("log in as %s on the console: the machine says that the login is incorrect", e.User)
}

// Login waits for the login prompt, logs in, and prepares the shell for Run: no echo, no line editing, no prompt, wide
// lines, and neither kernel nor systemd writing between what commands print.
func (c *Console) Login(ctx context.Context, user, password string) error {
	if _, err := c.Expect(ctx, loginPrompt()); err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	return c.logInAtPrompt(ctx, user, password)
}

// loginPrompt matches agetty's prompt. What the kernel says may come after it on the same line.
func loginPrompt() *regexp.Regexp { return regexp.MustCompile(`login: `) }

func (c *Console) logInAtPrompt(ctx context.Context, user, password string) error {
	if err := c.Send(user + "\n"); err != nil {
		return err
	}
	m, err := c.expectPrompt(ctx, regexp.MustCompile(`[Pp]assword: `))
	if err != nil {
		return fmt.Errorf("log in as %s: %w", user, err)
	}
	if m.Index == 0 {
		if err := c.Send(password + "\n"); err != nil {
			return err
		}
		m, err = c.expectPrompt(ctx, regexp.MustCompile(`Login incorrect`))
		if err != nil {
			return fmt.Errorf("log in as %s: %w", user, err)
		}
		if m.Index == 0 {
			return ErrLogin{user}
		}
	}
	return c.PrepareShell(ctx)
}

// shellPrompt matches a prompt that waits for input: nothing follows it.
func shellPrompt() *regexp.Regexp { return regexp.MustCompile(`(\S[#$]|^[#$]) \z`) }

// promptPatience is how long a prompt may take before Enter is pressed: the kernel may have written behind it on the same
// line, and then it is not seen.
const promptPatience = 20 * time.Second

// expectPrompt waits for the pattern (index 0) or for a shell's prompt (index 1).
func (c *Console) expectPrompt(ctx context.Context, pattern *regexp.Regexp) (Match, error) {
	for {
		patient, cancel := context.WithTimeout(ctx, promptPatience)
		m, err := c.Expect(patient, pattern, shellPrompt())
		timeout := patient.Err() != nil
		cancel()
		if err == nil || !timeout || ctx.Err() != nil {
			return m, err
		}
		if err := c.Send("\n"); err != nil {
			return m, err
		}
	}
}

// PrepareShell makes a shell that shows its prompt ready for Run. systemd takes signal 21 above SIGRTMIN as the order not to write
// on the console (systemd(1), Signals); elsewhere than in PID 1 systemd it changes nothing that matters.
func (c *Console) PrepareShell(ctx context.Context) error {
	const prepare = ` set +o emacs +o vi 2>/dev/null; unset HISTFILE PROMPT_COMMAND; PS1= PS2=; stty -echo -ixon cols 4096 rows 100; ` +
		`dmesg -n 1 2>/dev/null; [ -d /run/systemd/system ] && kill -s RTMIN+21 1; LC_ALL=C TERM=dumb PAGER=cat SYSTEMD_PAGER=cat; ` +
		`export LC_ALL TERM PAGER SYSTEMD_PAGER`
	if err := c.Send(prepare + "\n"); err != nil {
		return err
	}
	_, status, err := c.Run(ctx, "true")
	if err == nil && status != 0 {
		err = fmt.Errorf("true ended with status %d", status)
	}
	if err != nil {
		return fmt.Errorf("prepare the shell on the console: %w", err)
	}
	return nil
}

// Run runs a command line in the shell that Login prepared, with nothing to read, and returns what it wrote, both
// streams, without the last newline, and its exit status.
func (c *Console) Run(ctx context.Context, command string) (output string, status int, err error) {
	if len(command) > maxCommand || strings.ContainsAny(command, "\n\r\x00") {
		return "", 0, fmt.Errorf("run a command of %d bytes on the console: it must be one line of at most %d bytes", len(command), maxCommand)
	}
	var token [8]byte
	if _, err := rand.Read(token[:]); err != nil {
		return "", 0, fmt.Errorf("make a marker: %w", err)
	}
	// The markers are put together by printf, so that the echo of this line, should there be one, is not taken for them.
	id := hex.EncodeToString(token[:])
	line := fmt.Sprintf(` printf '\n@%%s@%%s@\n' %s begin; ( %s ) </dev/null 2>&1; printf '\n@%%s@%%s@%%d@\n' %s end $?`, id, command, id)
	if err := c.Send(line + "\n"); err != nil {
		return "", 0, err
	}
	if _, err := c.Expect(ctx, regexp.MustCompile(`@`+id+`@begin@`)); err != nil {
		return "", 0, fmt.Errorf("run %q: %w", command, err)
	}
	m, err := c.Expect(ctx, regexp.MustCompile(`@`+id+`@end@(\d+)@`))
	if err != nil {
		return "", 0, fmt.Errorf("run %q: %w", command, err)
	}
	status, err = strconv.Atoi(m.Groups[1])
	if err != nil {
		return "", 0, fmt.Errorf("run %q: read its exit status: %w", command, err)
	}
	return strings.TrimRight(strings.TrimPrefix(m.Before, "\n"), "\n"), status, nil
}
