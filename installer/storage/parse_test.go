package storage

import (
	"bytes"
	"reflect"
	"strings"
	"testing"
)

// What lvm 2.03.16 says of a group on /dev/loop0 in two pieces.
const (
	vgs = `  {
      "report": [
          {
              "vg": [
                  {"vg_name":"dsys", "vg_extent_size":"4194304", "vg_free_count":"39", "vg_missing_pv_count":"0"}
              ]
          }
      ]
  }
`
	lvs = `  {
      "report": [
          {
              "lv": [
                  {"vg_name":"dsys", "lv_name":"home", "lv_size":"163577856", "segtype":"linear", "pool_lv":""},
                  {"vg_name":"dsys", "lv_name":"pool", "lv_size":"41943040", "segtype":"thin-pool", "pool_lv":""},
                  {"vg_name":"dsys", "lv_name":"thin1", "lv_size":"104857600", "segtype":"thin", "pool_lv":"pool"}
              ]
          }
      ]
  }
`
	pvs = `  {
      "report": [
          {
              "pv": [
                  {"pv_name":"/dev/loop0", "vg_name":"dsys", "pe_start":"1048576"}
              ]
          }
      ]
  }
`
	segments = `  {
      "report": [
          {
              "seg": [
                  {"lv_name":"home", "segtype":"linear", "seg_start":"41943040", "seg_size":"8388608", "seg_pe_ranges":"/dev/loop0:40-41"},
                  {"lv_name":"home", "segtype":"linear", "seg_start":"0", "seg_size":"41943040", "seg_pe_ranges":"/dev/loop0:0-9"},
                  {"lv_name":"fast", "segtype":"striped", "seg_start":"0", "seg_size":"8388608", "seg_pe_ranges":"/dev/loop0:10-10 /dev/loop1:0-0"},
                  {"lv_name":"thin1", "segtype":"thin", "seg_start":"0", "seg_size":"104857600", "seg_pe_ranges":""}
              ]
          }
      ]
  }
`
)

func TestLVMsReportsAreRead(t *testing.T) {
	groups, err := parseGroups([]byte(vgs))
	if want := []groupInfo{{"dsys", 4 * mib, 39, 0}}; err != nil || !reflect.DeepEqual(groups, want) {
		t.Errorf("got %+v, %v", groups, err)
	}
	volumes, err := parseVolumes([]byte(lvs))
	if want := []volumeInfo{{"dsys", "home", 156 * mib, false, ""}, {"dsys", "pool", 40 * mib, true, ""}, {"dsys", "thin1", 100 * mib, false, "pool"}}; err != nil || !reflect.DeepEqual(volumes, want) {
		t.Errorf("got %+v, %v", volumes, err)
	}
	physical, err := parsePhysical([]byte(pvs))
	if want := []physicalInfo{{"/dev/loop0", "dsys", mib}}; err != nil || !reflect.DeepEqual(physical, want) {
		t.Errorf("got %+v, %v", physical, err)
	}
	pieces, err := parseSegments([]byte(segments), 4*mib, physical)
	if want := map[string][]piece{"home": {{"/dev/loop0", 0, mib, 40 * mib}, {"/dev/loop0", 40 * mib, 161 * mib, 8 * mib}}}; err != nil || !reflect.DeepEqual(pieces, want) {
		t.Errorf("got %+v, %v", pieces, err)
	}
	for _, bad := range []string{"", "{", `{"report":[{"vg":[{"vg_name":"x","vg_extent_size":"4m"}]}]}`} {
		if _, err := parseGroups([]byte(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

const examined = `MD_LEVEL=raid1
MD_DEVICES=2
MD_NAME=any:boot
MD_ARRAY_SIZE=1021.00MiB
MD_UUID=11111111:22222222:33333333:44444444
MD_UPDATE_TIME=1732190000
MD_DEV_UUID=55555555:66666666:77777777:88888888
MD_EVENTS=17
MD_METADATA=1.0
`

func TestWhatMdadmSaysOfAMemberIsRead(t *testing.T) {
	m, err := parseMember([]byte(examined))
	if want := (member{"boot", "11111111:22222222:33333333:44444444", 2}); err != nil || m != want {
		t.Errorf("got %+v, %v", m, err)
	}
}

func FuzzLVMsReports(f *testing.F) {
	for _, s := range []string{vgs, lvs, pvs, segments} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, err := parseGroups(b)
		for _, g := range groups {
			if err == nil && (g.extent < 0 || g.free < 0 || g.missing < 0) {
				t.Errorf("a group with %+v", g)
			}
		}
		_, _ = parseVolumes(b)
		physical, _ := parsePhysical(b)
		pieces, err := parseSegments(b, 4*mib, append(physical, physicalInfo{"/dev/loop0", "x", mib}))
		for _, list := range pieces {
			for _, p := range list {
				if err == nil && (p.at < 0 || p.size < 0 || p.node == "") {
					t.Errorf("a piece with %+v", p)
				}
			}
		}
	})
}

func FuzzWhatMdadmSays(f *testing.F) {
	f.Add([]byte(examined))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := parseMember(b); err == nil && strings.ContainsAny(m.uuid+m.array, "\n") {
			t.Errorf("got %+v", m)
		}
	})
}

func FuzzIdentify(f *testing.F) {
	xfs := make([]byte, 512)
	copy(xfs, "XFSB")
	f.Add(xfs)
	swap := make([]byte, 8192)
	copy(swap[4086:], "SWAPSPACE2")
	f.Add(swap)
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := identify(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	})
}
