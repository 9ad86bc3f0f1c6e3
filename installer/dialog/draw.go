package dialog

import (
	"fmt"
	"slices"
	"strings"
)

// The rows of every screen.
const (
	firstRow  = 2 // below the title
	noteRow   = 20
	buttonRow = 22
	helpRow   = 23
	// textRows is how many lines of the summary are seen at once.
	textRows = noteRow - firstRow - 1
	holdRows = 6 // of what is on a disk
)

// draw is what the person sees.
func (m *model) draw() *screen {
	s := newScreen()
	m.title(s)
	switch m.step {
	case stepDisks:
		s.text(firstRow, 1, "Which disks is the system to be made of? Mark them in their order.")
		m.form(s, firstRow+2)
		m.drawHolds(s, firstRow+12)
	case stepLayout:
		s.text(firstRow, 1, "What becomes of "+m.names()+"?")
		m.form(s, firstRow+2)
	case stepHost:
		m.form(s, firstRow)
	case stepAccess:
		for i, line := range wrap("How does root log in? Give a password, which is typed twice and not shown, or the line of a .pub file, or both. "+
			"What stays empty stays as the release has it.", cols-2) {
			s.text(firstRow+i, 1, line)
		}
		m.form(s, firstRow+4)
	case stepSummary:
		m.drawSummary(s)
		m.form(s, firstRow)
	case stepConfirm:
		m.drawConfirm(s)
	case stepInstall:
		m.progress.draw(s)
		s.text(helpRow, 1, "The installation is running.")
	case stepResult:
		m.drawResult(s)
	}
	if m.note != "" {
		for i, line := range wrap(m.note, cols-2) {
			if i < buttonRow-noteRow {
				s.text(noteRow+i, 1, line)
			}
		}
	}
	if m.ask != nil {
		m.drawQuestion(s)
	}
	return s
}

func (m *model) title(s *screen) {
	names := []string{"Disks", "Layout", "Name and network", "Root", "What would be done", "Last question", "Installation", "Result"}
	s.text(0, 1, clip("Install "+m.o.Release, 40))
	where := names[m.step]
	if m.step < stepInstall {
		where += fmt.Sprintf("  %d of %d", m.step+1, stepInstall)
	}
	s.text(0, cols-1-len(where), where)
	s.invert(0, 0, cols)
}

// form draws the elements from a row on, and the buttons at their place. Fields that follow each other stand close together.
func (m *model) form(s *screen, row int) {
	var before element
	es := m.elements()
	for i, e := range es {
		_, isField := e.(*field)
		_, wasField := before.(*field)
		if before != nil && !(isField && wasField) {
			row++
		}
		at := row
		if e == element(&m.buttons) {
			at = buttonRow
		}
		e.draw(s, at, i == m.focus && m.ask == nil)
		row += e.height()
		before = e
		if i == m.focus && m.ask == nil {
			s.text(helpRow, 1, e.help())
		}
	}
}

// drawHolds shows what is on the disk that the cursor is on.
func (m *model) drawHolds(s *screen, row int) {
	if len(m.o.Disks) == 0 {
		s.text(row, 1, "This machine has no disk that the kernel knows.")
		return
	}
	d := m.o.Disks[m.disks.at]
	s.text(row, 1, clip(d.describe(), cols-2))
	var lines []string
	switch {
	case d.Unusable != "":
		lines = []string{"It cannot be chosen: " + d.Unusable}
	case d.Caution != "":
		lines = []string{"Think before choosing it: " + d.Caution}
	}
	lines = append(lines, d.Holds...)
	if len(d.Holds) == 0 {
		lines = append(lines, "Nothing is on it.")
	}
	for i, line := range lines {
		if i == holdRows-2 && len(lines) > holdRows-1 {
			s.text(row+1+i, 3, fmt.Sprintf("and %d more", len(lines)-i))
			return
		}
		s.text(row+1+i, 3, clip(line, cols-4))
	}
}

// names are the chosen disks' names.
func (m *model) names() string {
	var out []string
	for _, d := range m.chosen() {
		out = append(out, d.Name)
	}
	if len(out) < 2 {
		return strings.Join(out, "")
	}
	return strings.Join(out[:len(out)-1], ", ") + " and " + out[len(out)-1]
}

// given is what the person said, before what the installer makes of it.
func (m *model) given() string {
	var b strings.Builder
	line := func(what, said string) { fmt.Fprintf(&b, "%-10s %s\n", what+":", said) }
	var disks []string
	for _, d := range m.chosen() {
		disks = append(disks, d.describe())
	}
	line("disks", strings.Join(disks, "; "))
	if i := m.presets.choice(); i >= 0 && m.offered[i].Name != "" {
		line("layout", string(m.offered[i].Name))
	} else {
		line("layout", "the release's own")
	}
	name := m.hostname.text()
	if name == "" {
		name = "the release's own"
	}
	line("host name", name)
	network, card := m.mode.rows[m.mode.choice()].text, m.cards.choice()
	if m.mode.choice() != networkAny && card >= 0 {
		nic := m.o.Cards[card]
		network = "DHCP on " + nic.Name + " (" + nic.MAC + ")"
		if m.mode.choice() == networkStatic {
			network = m.address.text() + " on " + nic.Name + " (" + nic.MAC + ")"
			for _, more := range []struct{ what, said string }{{"gateway", m.gateway.text()}, {"DNS", m.dns.text()}} {
				if more.said != "" {
					network += ", " + more.what + " " + more.said
				}
			}
		}
	}
	line("network", network)
	var root []string
	if m.hashed != "" {
		root = append(root, "a password")
	}
	if m.sshKey.text() != "" {
		words := strings.Fields(m.sshKey.text())
		root = append(root, "the SSH key "+clip(words[len(words)-1], 40))
	}
	if root == nil {
		root = []string{"as the release has it"}
	}
	line("root", strings.Join(root, " and "))
	return b.String()
}

// previewed takes what Preview said.
func (m *model) previewed(text string, refused error) {
	m.previewing, m.refused, m.scroll = false, refused != nil, 0
	head := m.given()
	if refused != nil {
		head = "This installation is refused:\n" + strings.Join(wrap("  "+refused.Error(), cols-3), "\n") + "\n\n" + head
	}
	m.summary = wrap(head+"\n"+text, cols-3)
	m.buttons = buttons{labels: []string{"Back"}}
	if refused != nil {
		return
	}
	if m.o.Save != nil {
		m.buttons.labels = append(m.buttons.labels, "Save answers")
	}
	m.buttons.labels = append(m.buttons.labels, "Next")
	m.buttons.at = len(m.buttons.labels) - 1
}

// saved takes how Save ended.
func (m *model) saved(err error) {
	if err != nil {
		m.note = fmt.Sprintf("The answers were not saved to %s: %v", m.o.SavePath, err)
		return
	}
	m.note = "The answers are in " + m.o.SavePath + "."
	if m.hashed != "" {
		m.note += " The password's hash is among them: keep the file from others."
	}
}

// scrolled says whether a key has moved the summary.
func (m *model) scrolled(k key) bool {
	to := m.scroll
	switch k.kind {
	case keyUp:
		to--
	case keyDown:
		to++
	case keyPageUp:
		to -= textRows
	case keyPageDown:
		to += textRows
	case keyText:
		if k.ch != ' ' || m.scroll >= m.scrollEnd() {
			return false
		}
		to += textRows // as in a pager; at the end it presses the button
	case keyHome:
		to = 0
	case keyEnd:
		to = m.scrollEnd()
	default:
		return false
	}
	m.scroll = min(max(to, 0), m.scrollEnd())
	return true
}

func (m *model) scrollEnd() int { return max(len(m.summary)-textRows, 0) }

func (m *model) drawSummary(s *screen) {
	if m.previewing {
		s.text(firstRow, 1, "Looking at the disks and working out what would be done ...")
		return
	}
	for i, line := range m.summary[m.scroll:min(m.scroll+textRows, len(m.summary))] {
		s.text(firstRow+i, 1, line)
	}
	if end := m.scrollEnd(); end > 0 {
		s.text(noteRow-1, 1, fmt.Sprintf("-- lines %d to %d of %d: Up, Down, PgUp, PgDn --", m.scroll+1, min(m.scroll+textRows, len(m.summary)), len(m.summary)))
	}
}

// drawConfirm shows the disks with the fields for their names; where there are many, those around the one that is typed.
func (m *model) drawConfirm(s *screen) {
	for i, line := range wrap("Nothing has been written yet. When the names have been typed and Install is pressed, the disks are written to as the summary said, "+
		"and what it named as erased cannot be brought back.", cols-2) {
		s.text(firstRow+i, 1, line)
	}
	const shown = 6
	top := min(max(m.focus-shown/2, 0), max(len(m.confirm)-shown, 0))
	disks := m.chosen()
	for i, f := range m.confirm[top:min(top+shown, len(m.confirm))] {
		d := disks[top+i]
		what := "empty"
		if d.Loses {
			what = "NOT EMPTY: " + strings.Join(d.Holds, "; ")
		}
		s.text(firstRow+4+2*i, 1, clip(d.describe()+"  "+what, cols-2))
		f.draw(s, firstRow+5+2*i, m.focus == top+i && m.ask == nil)
	}
	onButtons := m.focus >= len(m.confirm) && m.ask == nil
	m.buttons.draw(s, buttonRow, onButtons)
	if onButtons {
		s.text(helpRow, 1, m.buttons.help())
	} else if m.ask == nil {
		s.text(helpRow, 1, m.confirm[m.focus].help())
	}
}

func (m *model) drawResult(s *screen) {
	head, after, text := "The installation is complete.", m.o.AfterDone, m.result.Text
	if m.err != nil {
		head, after, text = "The installation has failed.", m.o.AfterFailure, m.err.Error()
	}
	s.text(firstRow, 1, head)
	lines := wrap(text, cols-2)
	if m.err != nil {
		if m.result.Advice != "" {
			lines = append(lines, wrap("What to do: "+m.result.Advice, cols-2)...)
		}
		if m.o.Log != "" {
			lines = append(lines, wrap("The log is in "+m.o.Log+".", cols-2)...)
		}
		lines = append(append(lines, "", "The last that was said:"), m.progress.tail(5)...)
	}
	for i, line := range lines {
		if firstRow+2+i < buttonRow-1 {
			s.text(firstRow+2+i, 1, clip(line, cols-2))
		}
	}
	m.buttons.draw(s, buttonRow, true)
	s.text(helpRow, 1, "Press Enter to "+after+".")
}

// drawQuestion draws the question in a box over the screen.
func (m *model) drawQuestion(s *screen) {
	const left, width = 8, cols - 16
	lines := wrap(m.ask.text, width-6)
	top := 8
	border := "+" + strings.Repeat("-", width-2) + "+"
	blank := "|" + strings.Repeat(" ", width-2) + "|"
	s.text(top, left, border)
	for i := range len(lines) + 4 {
		s.text(top+1+i, left, blank)
	}
	for i, line := range lines {
		s.text(top+2+i, left+3, line)
	}
	s.text(top+len(lines)+5, left, border)
	for r := top; r <= top+len(lines)+5; r++ {
		clear(s.reverse[r][left : left+width])
	}
	b := &m.ask.buttons
	col := left + 3
	for i, label := range b.labels {
		end := s.text(top+len(lines)+3, col, "< "+label+" >")
		if i == b.at {
			s.invert(top+len(lines)+3, col, end)
			s.cursor(top+len(lines)+3, col+2)
		}
		col = end + 2
	}
	copy(s.chars[helpRow][:], slices.Repeat([]byte(" "), cols))
	s.text(helpRow, 1, "Left/Right: move   Enter: press   y: yes   n or Esc: no")
}
