//go:build integration

package mbr

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sfdisk reads what is written here as it was meant, and writes the same bytes itself.
func TestSfdiskAgrees(t *testing.T) {
	tool, err := exec.LookPath("sfdisk")
	if err != nil {
		t.Skip("sfdisk is not installed")
	}
	tab := sample(512)
	ours := image(t, tab)
	out, err := exec.Command(tool, "--json", ours).Output()
	if err != nil {
		t.Fatal(err)
	}
	var dump struct {
		Table struct {
			Label, ID  string
			Partitions []struct {
				Start, Size uint64
				Type        string
				Bootable    bool
			}
		} `json:"partitiontable"`
	}
	if err := json.Unmarshal(out, &dump); err != nil {
		t.Fatal(err)
	}
	if dump.Table.Label != "dos" || dump.Table.ID != "0x1a2b3c4d" || len(dump.Table.Partitions) != len(tab.Partitions) {
		t.Fatalf("sfdisk reads %s", out)
	}
	for i, p := range dump.Table.Partitions {
		w := tab.Partitions[i]
		if p.Start != w.First || p.Size != w.Last-w.First+1 || p.Bootable != w.Active {
			t.Errorf("sfdisk reads partition %d as %+v, want %+v", w.Number, p, w)
		}
	}
	if out, err := exec.Command(tool, "--verify", ours).CombinedOutput(); err != nil || strings.Contains(string(out), "verlap") {
		t.Errorf("sfdisk --verify: %v\n%s", err, out)
	}

	theirs := filepath.Join(t.TempDir(), "theirs")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(theirs, 1<<30); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, theirs)
	cmd.Stdin = strings.NewReader("label: dos\nlabel-id: 0x1a2b3c4d\nunit: sectors\n" +
		"1 : start=2048, size=131072, type=83, bootable\n2 : start=204800, size=1433600, type=f\n4 : start=1638400, size=458752, type=8e\n" +
		"5 : start=206848, size=202752, type=82\n6 : start=616448, size=202752, type=83\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f, err := os.Open(theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := Read(f, 1<<30, 512)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Partitions) != 5 || got.Signature != 0x1a2b3c4d || !got.Partitions[0].Active || got.Partitions[3].Record != 204800 {
		t.Errorf("what sfdisk wrote is read as %+v", got)
	}
	// The same table, by us: the same bytes.
	groups, err := got.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, w := range g {
			b := make([]byte, len(w.Data))
			if _, err := f.ReadAt(b, w.Offset); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, w.Data) {
				t.Errorf("%s at %d:\nours   % x\ntheirs % x", w.What, w.Offset, w.Data[440:512], b[440:512])
			}
		}
	}
}

func image(t *testing.T, tab *Table) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ours")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(tab.Sectors) * int64(tab.SectorSize)); err != nil {
		t.Fatal(err)
	}
	groups, err := tab.Encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range groups {
		for _, w := range g {
			if _, err := f.WriteAt(w.Data, w.Offset); err != nil {
				t.Fatal(err)
			}
		}
	}
	return file
}
