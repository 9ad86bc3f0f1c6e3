package testvm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
)

// InstallerError is what the installer said when it gave up.
type InstallerError struct {
	Sentence string // after "imgbuild: failed: "
	Advice   string // after "imgbuild: what to do: ", if it said so
}

func (e *InstallerError) Error() string {
	s := "the installer failed: " + e.Sentence
	if e.Advice != "" {
		s += "; what to do: " + e.Advice
	}
	return s
}

// Step is one step that the installer announced.
type Step struct {
	N, Of int
	What  string
}

// installerLines match what the installer and a dying kernel say, in the order of the constants below. A line may begin
// with something that the kernel wrote just before.
func installerLines() []*regexp.Regexp {
	return []*regexp.Regexp{
		lineStep:    regexp.MustCompile(`imgbuild: step (\d+)/(\d+) (.*)$`),
		lineDone:    regexp.MustCompile(`imgbuild: (?:done: (.*)|(nothing was written[,;] .*))$`), // the second is a preview's
		lineFailed:  regexp.MustCompile(`imgbuild: failed: (.*)$`),
		lineAdvice:  regexp.MustCompile(`imgbuild: what to do: (.*)$`),
		lineWriting: regexp.MustCompile(`imgbuild: writing to (\S+)(.*)$`),
		lineWaiting: regexp.MustCompile(`imgbuild: rebooting in \d+ s`),
		linePanic:   regexp.MustCompile(`Kernel panic - not syncing.*`),
	}
}

const (
	lineStep = iota
	lineDone
	lineFailed
	lineAdvice
	lineWriting
	lineWaiting
	linePanic
)

// Installation is what could be seen of an installer at work.
type Installation struct {
	Steps   []Step
	Writing string // the disk that it said it would write to; empty if it came to no write
	Done    string // the sentence of its success
	// Requests are what the machine asked of the web server.
	Requests []Request
}

// FollowInstaller reads an installer's lines until it says that it is done, or has failed, which is an *InstallerError.
func FollowInstaller(ctx context.Context, c *Console) (Installation, error) {
	var in Installation
	var failed *InstallerError
	patterns := installerLines()
	for {
		m, err := c.expectLine(ctx, patterns)
		if err != nil {
			if failed != nil && errors.Is(err, ErrConsoleClosed) {
				return in, failed
			}
			return in, fmt.Errorf("follow the installer: %w", err)
		}
		switch m.Index {
		case lineStep:
			n, _ := strconv.Atoi(m.Groups[1]) // digits, and too many of them are no step that matters
			of, _ := strconv.Atoi(m.Groups[2])
			in.Steps = append(in.Steps, Step{n, of, m.Groups[3]})
		case lineWriting:
			in.Writing = m.Groups[1]
		case lineDone:
			in.Done = cmp.Or(m.Groups[1], m.Groups[2])
			return in, nil
		case lineFailed:
			failed = &InstallerError{Sentence: m.Groups[1]}
		case lineAdvice:
			if failed != nil {
				failed.Advice = m.Groups[1]
			}
		case lineWaiting:
			if failed != nil {
				return in, failed
			}
		case linePanic:
			return in, fmt.Errorf("follow the installer: its kernel died: %s; the console's last lines:\n%s", m.Groups[0], c.Tail(25))
		}
	}
}
