package disk

import (
	"strings"
	"testing"

	"imgbuild/installer/disk/probe"
)

func TestALongListOfFindingsIsCut(t *testing.T) {
	var found []probe.Finding
	for i := range 130 {
		found = append(found, probe.Finding{Partition: i + 1, Kind: "swap space", Size: 1})
	}
	if s := Findings(found); !strings.HasSuffix(s, "; and 118 more") {
		t.Errorf("got %s", s)
	}
}
