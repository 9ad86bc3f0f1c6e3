package registry

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"imgbuild/image/plan"
)

// What a preview may leave in the registry: a machine with 200 disks has some 150 KiB.
const (
	maxOutlook     = 1 << 20   // bytes of JSON
	maxOutlookText = 256 << 10 // bytes of what is shown to people
)

// outlookText is what a machine has found as it is stored: its texts clean, and those for people in as many lines as they
// have.
func outlookText(o plan.Outlook) (string, error) {
	lines := strings.SplitAfter(strings.ToValidUTF8(o.Text, "�"), "\n")
	var text strings.Builder
	for _, line := range lines {
		end := ""
		if strings.HasSuffix(line, "\n") {
			line, end = line[:len(line)-1], "\n"
		}
		if line = clean(line) + end; text.Len()+len(line) > maxOutlookText {
			text.WriteString("…\n")
			break
		}
		text.WriteString(line)
	}
	o.Text = ""
	o = cleaned(o)
	o.Text = text.String()
	if o.Disks == nil {
		o.Disks = []plan.OutlookDisk{}
	}
	data, err := json.Marshal(o)
	if err != nil {
		return "", err
	}
	if len(data) > maxOutlook {
		return "", fmt.Errorf("it has %d bytes, and %d is the most", len(data), maxOutlook)
	}
	return string(data), nil
}

// Outlook returns what a preview has found; ErrNotFound if there is no such order or it has found nothing (yet).
func (s *Store) Outlook(ctx context.Context, order string) (*plan.Outlook, error) {
	var found *plan.Outlook
	err := s.ask(ctx, "read preview "+order, func(ctx context.Context, t *tx) error {
		text, err := first(ctx, t, func(row scanner) (v string, err error) { return v, row.Scan(&v) }, `SELECT outlook FROM orders WHERE id = ?`, order)
		if err != nil {
			return err
		}
		if text == nil || *text == "" {
			return ErrNotFound
		}
		found = new(plan.Outlook)
		if err := json.Unmarshal([]byte(*text), found); err != nil {
			return fmt.Errorf("read it as it is stored: %w", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
