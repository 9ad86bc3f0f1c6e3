package dialog

import (
	"fmt"
	"slices"

	"imgbuild/image/accounts"
	"imgbuild/image/layout"
	"imgbuild/installer/answers"
)

// step is one of the screens.
type step int

const (
	stepDisks step = iota
	stepLayout
	stepHost
	stepAccess
	stepSummary
	stepConfirm
	stepInstall
	stepResult
)

// effect is what a key asks the world to do. The model itself does nothing but change.
type effect byte

const (
	effectNone    effect = iota
	effectRedraw         // send all of the screen again
	effectPreview        // call Preview with the answers
	effectForget         // nobody waits for the preview any more
	effectSave           // call Save with the answers
	effectInstall        // call Install with the answers
	effectLeave          // end: before anything was written, or after the result was read
)

// question is asked over a screen.
type question struct {
	text    string
	buttons buttons // the first one is no
	yes     func(*model) effect
}

// model is the state of the dialog: keys and news change it, draw shows it.
type model struct {
	o    Options
	hash func(password string) string

	step    step
	focus   int
	note    string // what the person is told, until the next key
	ask     *question
	buttons buttons

	disks   list
	presets list
	offered []Preset // those of the list

	hostname, address, gateway, dns field
	mode, cards                     list

	password, again, sshKey field
	hashed                  string // of the password
	locked                  bool   // the person has said that nobody is to log in as root

	previewing bool
	summary    []string
	refused    bool
	scroll     int

	confirm []*field

	progress progress
	result   Result
	err      error
}

func newModel(o Options, hash func(string) string) *model {
	m := &model{o: o, hash: hash}
	m.disks = list{many: true, window: 8}
	for _, d := range o.Disks {
		m.disks.rows = append(m.disks.rows, row{diskRow(d), d.Unusable})
	}
	m.presets = list{window: 8}
	m.initHost()
	m.password = field{label: "Root password", hidden: true}
	m.again = field{label: "The same again", hidden: true}
	m.sshKey = field{label: "Root's SSH public key"}
	m.enter(stepDisks)
	return m
}

// enter goes to a screen.
func (m *model) enter(s step) {
	m.step, m.focus, m.note = s, 0, ""
	switch s {
	case stepDisks:
		m.buttons = buttons{labels: []string{"Next"}}
	case stepLayout:
		m.offerPresets()
		m.buttons = buttons{labels: []string{"Back", "Next"}, at: 1}
	case stepHost, stepAccess:
		m.buttons = buttons{labels: []string{"Back", "Next"}, at: 1}
	case stepSummary:
		m.scroll, m.summary, m.refused, m.previewing = 0, nil, false, true
		m.buttons = buttons{labels: []string{"Back"}}
	case stepConfirm:
		m.confirm = nil
		for _, d := range m.chosen() {
			m.confirm = append(m.confirm, &field{label: "Type " + d.Name})
		}
		m.buttons = buttons{labels: []string{"Back", "Install"}, at: 1}
	case stepInstall:
		m.buttons = buttons{}
	case stepResult:
		m.buttons = buttons{labels: []string{"Go on"}}
	}
}

// elements are what takes keys on this screen, from its top.
func (m *model) elements() []element {
	var es []element
	switch m.step {
	case stepDisks:
		es = []element{&m.disks}
	case stepLayout:
		es = []element{&m.presets}
	case stepHost:
		es = m.hostElements()
	case stepAccess:
		es = []element{&m.password, &m.again, &m.sshKey}
	case stepConfirm:
		for _, f := range m.confirm {
			es = append(es, f)
		}
	case stepInstall:
		return nil
	}
	return append(es, &m.buttons)
}

const onlyASCII = "Only ASCII characters can be typed here: letters without accents, digits and signs."

// press takes a key.
func (m *model) press(k key) effect {
	if k.kind == keyRedraw {
		return effectRedraw
	}
	if m.ask != nil {
		return m.answer(k)
	}
	if k.kind != keyText || m.note != onlyASCII { // who pastes a text is to see that some of it is missing
		m.note = ""
	}
	switch {
	case m.step == stepInstall:
		if k.kind == keyEscape || k.kind == keyInterrupt {
			m.note = "The installation is running and cannot be left. A disk that is cut off now does not boot."
		}
		return effectNone
	case m.step == stepResult:
		if k.kind == keyEnter {
			return effectLeave
		}
		return effectNone
	case k.kind == keyEscape || k.kind == keyInterrupt:
		m.ask = &question{text: "Leave the installer? Nothing has been written to any disk.",
			buttons: buttons{labels: []string{"No, go on", "Yes, leave"}}, yes: func(*model) effect { return effectLeave }}
		return effectNone
	case k.kind == keyForeign:
		m.note = onlyASCII
		return effectNone
	case m.step == stepSummary && m.scrolled(k):
		return effectNone
	}
	es := m.elements()
	m.focus = min(m.focus, len(es)-1)
	d, note := es[m.focus].press(k)
	if note != "" {
		m.note = note
	}
	switch {
	case d == didPress:
		return m.button()
	case d == didMove:
		m.focus = min(m.focus+1, len(es)-1)
	case d == didTake:
	case k.kind == keyTab:
		m.focus = (m.focus + 1) % len(m.elements())
	case k.kind == keyBackTab:
		m.focus = (m.focus + len(es) - 1) % len(es)
	case k.kind == keyUp:
		m.focus = max(m.focus-1, 0)
	case k.kind == keyDown:
		m.focus = min(m.focus+1, len(es)-1)
	}
	return effectNone
}

// answer takes a key for the question.
func (m *model) answer(k key) effect {
	q := m.ask
	switch {
	case k.kind == keyEscape || k.kind == keyInterrupt:
		m.ask = nil
	case k.kind == keyTab || k.kind == keyBackTab:
		q.buttons.at = 1 - q.buttons.at
	case k.kind == keyText && (k.ch == 'y' || k.ch == 'Y'):
		m.ask = nil
		return q.yes(m)
	case k.kind == keyText && (k.ch == 'n' || k.ch == 'N'):
		m.ask = nil
	default:
		if d, _ := q.buttons.press(k); d == didPress {
			m.ask = nil
			if q.buttons.at == 1 {
				return q.yes(m)
			}
		}
	}
	return effectNone
}

// button does what the button under the cursor says.
func (m *model) button() effect {
	switch m.buttons.labels[m.buttons.at] {
	case "Back":
		was := m.step
		m.enter(m.step - 1)
		if was == stepSummary {
			return effectForget
		}
		if m.step == stepSummary {
			return effectPreview // what is on the disks may have changed meanwhile
		}
	case "Save answers":
		return effectSave
	case "Next":
		return m.forward()
	case "Install":
		return m.confirmed()
	}
	return effectNone
}

// forward goes to the next screen, if what is on this one is good.
func (m *model) forward() effect {
	note, at := m.fault()
	if note != "" {
		m.note, m.focus = note, at
		return effectNone
	}
	if m.step == stepAccess && len(m.password.value) == 0 && m.sshKey.text() == "" && !m.locked {
		m.ask = &question{text: "Neither a password nor a key: only accounts that the release brings can log in. Go on?",
			buttons: buttons{labels: []string{"No, go back", "Yes, go on"}}, yes: func(m *model) effect { m.locked = true; return m.forward() }}
		return effectNone
	}
	if m.step == stepAccess {
		m.hashed = ""
		if len(m.password.value) > 0 {
			m.hashed = m.hash(string(m.password.value))
		}
	}
	m.enter(m.step + 1)
	if m.step == stepSummary {
		return effectPreview
	}
	return effectNone
}

// fault is what is wrong with what was given on this screen, and the element where it is.
func (m *model) fault() (note string, at int) {
	switch m.step {
	case stepDisks:
		if len(m.disks.marked) == 0 {
			if !slices.ContainsFunc(m.o.Disks, func(d Disk) bool { return d.Unusable == "" }) {
				return "This machine has no disk that can be installed to. Press Esc to leave.", 0
			}
			return "Mark the disk to install to with Space, or several for a layout of several disks.", 0
		}
	case stepLayout:
		if m.presets.choice() < 0 {
			return fmt.Sprintf("Choose a layout. None here fits %s: go back and mark as many disks as one needs.", count(len(m.disks.marked), "disk")), 0
		}
	case stepHost:
		return m.hostFault()
	case stepAccess:
		if string(m.password.value) != string(m.again.value) {
			return "The two passwords are not the same. Type both again.", 0
		}
		if k := m.sshKey.text(); k != "" {
			if problem := accounts.CheckSSHKey(k); problem != "" {
				return "The key " + problem + ".", 2
			}
		}
	}
	return "", 0
}

// offerPresets makes the list of layouts for the disks that are marked. What was chosen stays so where it still can be.
func (m *model) offerPresets() {
	n := len(m.disks.marked)
	m.offered = m.o.Presets
	old := m.presets
	m.presets.rows, m.presets.marked = nil, nil
	for _, p := range m.o.Presets {
		why := p.Unusable
		if why == "" && p.Disks != n {
			why = fmt.Sprintf("it needs %s, and %s chosen", count(p.Disks, "disk"), are(n))
		}
		m.presets.rows = append(m.presets.rows, presetRow(p, why))
	}
	free := func(i int) bool { return m.presets.rows[i].why == "" }
	choose := old.choice()
	if choose < 0 || !free(choose) {
		choose = slices.IndexFunc(m.presets.rows, func(r row) bool { return r.why == "" })
	}
	if choose >= 0 {
		m.presets.marked, m.presets.at = []int{choose}, choose
	}
}

// chosen are the disks, in the order in which they were marked.
func (m *model) chosen() []Disk {
	var ds []Disk
	for _, i := range m.disks.marked {
		ds = append(ds, m.o.Disks[i])
	}
	return ds
}

// confirmed begins the installation if every disk's name was typed.
func (m *model) confirmed() effect {
	for i, d := range m.chosen() {
		if got := string(m.confirm[i].value); got != d.Name {
			m.focus = i
			if got == "" {
				m.note = "Type the name " + d.Name + " to install to this disk. Nothing has been written."
			} else {
				m.note = fmt.Sprintf("%q is not %s. Nothing has been written.", clip(got, 30), d.Name)
			}
			return effectNone
		}
	}
	m.password.clear() // its hash is kept
	m.again.clear()
	m.enter(stepInstall)
	return effectInstall
}

// ended takes how Install ended.
func (m *model) ended(res Result, err error) {
	m.enter(stepResult)
	m.ask, m.result, m.err = nil, res, err
}

// answers are what was given so far.
func (m *model) answers() answers.Answers {
	var a answers.Answers
	for _, d := range m.chosen() {
		a.Disks = append(a.Disks, d.Argument)
		if d.Loses {
			a.Wipe = append(a.Wipe, d.Argument)
		}
	}
	if i := m.presets.choice(); i >= 0 && m.offered[i].Name != "" {
		a.Layout = &layout.Layout{Preset: m.offered[i].Name}
	}
	a.Host.Hostname = m.hostname.text()
	a.Host.Network, _ = m.network()
	a.Host.Users = m.users()
	return a
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func are(n int) string {
	if n == 1 {
		return "1 is"
	}
	return fmt.Sprintf("%d are", n)
}

// diskRow is a disk as the list has it.
func diskRow(d Disk) string {
	state := "empty"
	if len(d.Holds) > 0 {
		state = "not empty"
	}
	if d.Caution != "" {
		state += ", " + d.Caution
	}
	if d.Unusable != "" {
		state = d.Unusable
	}
	return fmt.Sprintf("%-8s %9s  %-18s %-14s %s", d.Name, layout.FormatBytes(d.Size), clip(d.Model, 18), clip(d.Serial, 14), state)
}

// presetRow is a layout as the list has it.
func presetRow(p Preset, why string) row {
	name, text := string(p.Name), p.Text
	if name == "" {
		name = "release"
	}
	if why != "" {
		text = "not here: " + why
	}
	return row{fmt.Sprintf("%-8s %s", name, text), why}
}
