package dnf

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Progress is how far dnf has come.
type Progress struct {
	Doing string // "downloading", "installing", "configuring", "verifying"
	Item  string // package
	Done  int
	Total int
}

// Scanner reads what dnf prints, line by line: its progress, and what it complains of.
type Scanner struct {
	// Progress, if not nil, is called with each step.
	Progress func(Progress)

	unmatched []string
	unsigned  []string
	badKey    []string
	damaged   []string
	repos     []string
	problems  []string
	other     []string
	inProblem bool
	atError   bool
}

// The forms of dnf's lines (dnf/cli/progress.py, dnf/cli/output.py, dnf/base.py, libdnf's and librepo's messages).
type patterns struct{ download, step, noMatch, noGroup, unsigned, noKey, wrongKey, damaged, localDamaged, repo *regexp.Regexp }

func newPatterns() patterns {
	return patterns{
		download:     regexp.MustCompile(`^\((\d+)(?:-\d+)?/(\d+)\): (\S+)`),
		step:         regexp.MustCompile(`^  (Preparing|Installing|Running scriptlet|Verifying)\s*: (.*?)\s+(\d+)/(\d+)$`),
		noMatch:      regexp.MustCompile(`(?:Unable to find a match:|No match for argument:) (.+)$`),
		noGroup:      regexp.MustCompile(`(?:Module or Group|Module or group|Group|Environment) '([^']+)' (?:is not available|does not exist)`),
		unsigned:     regexp.MustCompile(`^Package (\S+) is not signed`),
		noKey:        regexp.MustCompile(`Public key for (\S+) is not installed`),
		wrongKey:     regexp.MustCompile(`GPG keys listed for the "([^"]+)" repository are already installed but they are not correct`),
		damaged:      regexp.MustCompile(`(?:\[MIRROR\] |  )?(\S+\.rpm)(?:: |.*)(?:Downloading successful, but checksum doesn't match|[Cc]hecksum|Interrupted|digest|DIGEST)`),
		localDamaged: regexp.MustCompile(`(?:Package|Problem opening package) "?(\S+?)"? (?:from local repository ".*" has incorrect checksum|.*BAD|is corrupt)`),
		repo:         regexp.MustCompile(`Failed to download metadata for repo '([^']+)': (.+)`),
	}
}

// Reader returns the function that takes dnf's lines.
func (s *Scanner) Reader() func(string) {
	p := newPatterns()
	return func(line string) { s.read(p, line) }
}

func (s *Scanner) read(p patterns, line string) {
	if m := p.step.FindStringSubmatch(line); m != nil {
		what := map[string]string{"Preparing": "checking", "Installing": "installing", "Running scriptlet": "configuring", "Verifying": "verifying"}[m[1]]
		s.progress(what, m[2], m[3], m[4])
		return
	}
	if m := p.download.FindStringSubmatch(line); m != nil {
		s.progress("downloading", strings.TrimSuffix(m[3], ".rpm"), m[1], m[2])
		return
	}
	add := func(list *[]string, items ...string) {
		for _, i := range items {
			if i != "" && !slices.Contains(*list, i) {
				*list = append(*list, i)
			}
		}
	}
	switch {
	case p.noMatch.MatchString(line):
		add(&s.unmatched, strings.Fields(p.noMatch.FindStringSubmatch(line)[1])...)
	case p.noGroup.MatchString(line):
		add(&s.unmatched, "@"+p.noGroup.FindStringSubmatch(line)[1])
	case p.unsigned.MatchString(line):
		add(&s.unsigned, strings.TrimSuffix(p.unsigned.FindStringSubmatch(line)[1], ".rpm"))
	case p.noKey.MatchString(line):
		add(&s.badKey, strings.TrimSuffix(p.noKey.FindStringSubmatch(line)[1], ".rpm"))
	case p.wrongKey.MatchString(line):
		add(&s.badKey, "of repository "+p.wrongKey.FindStringSubmatch(line)[1])
	case p.localDamaged.MatchString(line):
		add(&s.damaged, baseName(p.localDamaged.FindStringSubmatch(line)[1]))
	case p.damaged.MatchString(line):
		add(&s.damaged, baseName(p.damaged.FindStringSubmatch(line)[1]))
	case p.repo.MatchString(line):
		m := p.repo.FindStringSubmatch(line)
		add(&s.repos, fmt.Sprintf("repository %s does not answer: %s", m[1], m[2]))
	}
	s.collect(line)
}

// collect keeps the text of dnf's own error, and the solver's problems, which go over several lines.
func (s *Scanner) collect(line string) {
	switch trimmed := strings.TrimSpace(line); {
	case strings.HasPrefix(trimmed, "Problem"):
		s.inProblem = true
		s.problems = append(s.problems, trimmed)
	case s.inProblem && strings.HasPrefix(line, "  "):
		s.problems[len(s.problems)-1] += ", " + strings.TrimPrefix(trimmed, "- ")
	case strings.HasPrefix(line, "Error: "), strings.HasPrefix(line, "error: "):
		s.inProblem, s.atError = false, true
		if t := strings.TrimSpace(line[len("Error: "):]); t != "" {
			s.other = append(s.other, t)
		}
	case s.atError && strings.HasPrefix(line, "  "):
		s.other = append(s.other, trimmed)
	default:
		s.inProblem = false
	}
}

func (s *Scanner) progress(doing, item, done, total string) {
	if s.Progress == nil {
		return
	}
	// The patterns have digits only; what does not fit an int is shown as 0.
	d, _ := strconv.Atoi(done)
	t, _ := strconv.Atoi(total)
	s.Progress(Progress{Doing: doing, Item: item, Done: d, Total: t})
}

func baseName(p string) string {
	return strings.TrimSuffix(p[strings.LastIndexByte(p, '/')+1:], ".rpm")
}

// Unknown returns the packages and groups that no repository has.
func (s *Scanner) Unknown() []string { return s.unmatched }

// Reasons returns, in sentences, why dnf failed; nil if nothing that is known was seen.
func (s *Scanner) Reasons() []string {
	var out []string
	list := func(what string, items []string, sentence string) {
		if len(items) > 0 {
			out = append(out, what+" "+some(items)+" "+sentence)
		}
	}
	out = append(out, s.repos...)
	list("no enabled repository has", s.unmatched, "")
	list("the packages", s.damaged, "are not the bytes that the repository's metadata promises: they are damaged or have been tampered with")
	list("the packages", s.unsigned, "are not signed: nothing unsigned is installed")
	list("the packages", s.badKey, "are not signed by any key that the profile trusts for their repository: check its gpgkeys")
	if len(out) == 0 && len(s.problems) > 0 {
		out = append(out, "the packages cannot be installed together: "+strings.Join(s.problems[:min(len(s.problems), 4)], "; "))
	}
	if len(out) == 0 {
		out = append(out, s.other[:min(len(s.other), 6)]...)
	}
	for i := range out {
		out[i] = strings.TrimSpace(out[i])
	}
	return out
}

// some names at most six items.
func some(items []string) string {
	if len(items) > 6 {
		return strings.Join(items[:6], ", ") + fmt.Sprintf(" and %d more", len(items)-6)
	}
	return strings.Join(items, ", ")
}

// Choice is one package that dnf has chosen to install.
type Choice struct{ Name, Arch, EVR string }

// String is the package as dnf takes it as an argument.
func (c Choice) String() string { return c.Name + "-" + c.EVR + "." + c.Arch }

// Choices reads, from dnf's log, what it has chosen in its last run in that log.
func Choices(log string) []Choice {
	re := regexp.MustCompile(`^\S+ \S+ -+> Package (\S+)\.([^.\s]+) (\S+) will be installed$`)
	var out []Choice
	for line := range strings.Lines(log) {
		line = strings.TrimRight(line, "\n")
		if m := re.FindStringSubmatch(line); m != nil {
			if c := (Choice{Name: m[1], Arch: m[2], EVR: m[3]}); !slices.Contains(out, c) {
				out = append(out, c)
			}
		}
	}
	return out
}
