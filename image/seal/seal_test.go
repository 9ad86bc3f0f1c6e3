package seal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"imgbuild/image"
	"imgbuild/image/layout"
)

func sample() Record {
	return Record{Serial: " SN-WEB1 ", Order: "o7k2", Image: "web/2.1", Time: time.Date(2026, 11, 21, 13, 0, 0, 123, time.FixedZone("CET", 3600)), Protect: true}
}

func key(t testing.TB) image.PrivateKey {
	t.Helper()
	k, err := image.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t testing.TB, r Record, k image.PrivateKey) []byte {
	t.Helper()
	b, err := Sign(r, k)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestASealComesBackAsItWasMade(t *testing.T) {
	k, other := key(t), key(t)
	want := Record{Schema: 1, Serial: "SN-WEB1", Order: "o7k2", Image: "web/2.1", Time: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC), Protect: true}
	b := signed(t, sample(), k)
	s, err := Parse(append(bytes.Clone(b), make([]byte, layout.SealSize-Size)...)) // as it is read from a partition
	if err != nil || s.Record != want || !s.Signed() || !s.SignedBy(k.Public()) || s.SignedBy(other.Public()) || s.SignedBy(image.PublicKey{}) {
		t.Errorf("%+v, %v", s, err)
	}
	if again := signed(t, sample(), k); len(b) != Size || !bytes.Equal(b, again) || !bytes.Equal(b[:copySize], b[copySize:]) {
		t.Errorf("%d bytes, the same twice: %v", len(b), bytes.Equal(b, again))
	}
	u, err := Unsigned(sample())
	if err != nil {
		t.Fatal(err)
	}
	s, err = Parse(u)
	if err != nil || s.Record != want || s.Signed() || s.SignedBy(k.Public()) {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestTheBytesOfASealStayAsTheyAre: disks are sealed for years.
func TestTheBytesOfASealStayAsTheyAre(t *testing.T) {
	b, err := Unsigned(sample())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/unsigned.seal")
	if os.IsNotExist(err) {
		t.Fatalf("testdata/unsigned.seal is missing; its bytes would be %x", sha256.Sum256(b))
	}
	if err != nil || !bytes.Equal(b, want) {
		t.Errorf("%v; %q", err, b[:400])
	}
}

func TestEveryDamagedByteOfACopyIsMadeGoodByTheOther(t *testing.T) {
	k := key(t)
	b := signed(t, sample(), k)
	for _, at := range []int{0, copySize} {
		for i := at; i < at+copySize; i++ {
			b[i] ^= 1 << (i % 8)
			s, err := Parse(b)
			if err != nil || s.Serial != "SN-WEB1" || !s.SignedBy(k.Public()) || s.second != nil {
				t.Fatalf("byte %d: %+v, %v", i, s, err)
			}
			b[i] ^= 1 << (i % 8)
		}
	}
}

func TestASealWithBothCopiesDamagedIsNotTakenForNone(t *testing.T) {
	b := signed(t, sample(), key(t))
	for name, c := range map[string]struct {
		change func([]byte) []byte
		none   bool
		says   string
	}{
		"nothing":                         {func([]byte) []byte { return make([]byte, Size) }, true, "there is no seal"},
		"another's bytes":                 {func([]byte) []byte { return bytes.Repeat([]byte{0xff}, Size) }, true, "there is no seal"},
		"half of one":                     {func(b []byte) []byte { return b[:Size-1] }, false, "8191 bytes were read of 8192"},
		"nothing at all":                  {func([]byte) []byte { return nil }, false, "0 bytes were read"},
		"both records":                    {func(b []byte) []byte { b[atRecord+3]++; b[copySize+atRecord+3]++; return b }, false, "checksum is wrong; its checksum is wrong"},
		"the first gone, the second hurt": {func(b []byte) []byte { clear(b[:copySize]); b[Size-1]++; return b }, false, "does not begin like one; its checksum"},
		"the second gone, the first hurt": {func(b []byte) []byte { clear(b[copySize:]); b[200]++; return b }, false, "checksum is wrong; it does not begin"},
		"a length beyond its room": {func(b []byte) []byte {
			return both(b, func(c []byte) { binary.LittleEndian.PutUint32(c[atLength:], uint32(maxRecord+1)) })
		}, false, "there is room for"},
		"a length of four thousand million": {func(b []byte) []byte {
			return both(b, func(c []byte) { binary.LittleEndian.PutUint32(c[atLength:], 1<<32-1) })
		}, false, "there is room for"},
		"a record that is no JSON": {func(b []byte) []byte { return both(b, func(c []byte) { c[atRecord] = 'x' }) }, false, "its record: "},
		"a record of no schema":    {func(b []byte) []byte { return both(b, func(c []byte) { copy(c[atRecord:], `{"schema":0`) }) }, false, "schema 0"},
	} {
		s, err := Parse(c.change(bytes.Clone(b)))
		if s != nil || err == nil || errors.Is(err, ErrNone) != c.none || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %+v, %v, want %q", name, s, err, c.says)
		}
	}
}

// both changes both copies, and makes their checksums right again.
func both(b []byte, change func([]byte)) []byte {
	for _, c := range [][]byte{b[:copySize], b[copySize:]} {
		change(c)
		digest := sha256.Sum256(c[:atDigest])
		copy(c[atDigest:], digest[:])
	}
	return b
}

func TestWhoChangesARecordLosesTheSignature(t *testing.T) {
	k, thief := key(t), key(t)
	b := signed(t, sample(), k)
	for name, change := range map[string]func([]byte){
		"another serial number": func(c []byte) { copy(c[bytes.Index(c, []byte("SN-WEB1")):], "SN-WEB2") },
		"no protection":         func(c []byte) { copy(c[bytes.Index(c, []byte("true")):], "null") },
		"another key beside it": func(c []byte) { _, p := image.SignSeal(nil, thief); copy(c[atKey:], p); c[atSign]++ },
		"a plan's signature":    func(c []byte) { copy(c[atSign:], image.SignPlan(c[atRecord:atRecord+len(c)/40], k)) },
		"another's own signature": func(c []byte) {
			s, p := image.SignSeal(c[atRecord:atDigest], thief)
			copy(c[atKey:], p)
			copy(c[atSign:], s)
		},
	} {
		s, err := Parse(both(bytes.Clone(b), change))
		if err != nil || !s.Signed() || s.SignedBy(k.Public()) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func TestASealOfALaterVersionStillRefuses(t *testing.T) {
	b, err := Unsigned(Record{Serial: "SN-WEB1", Image: "web/1"})
	if err != nil {
		t.Fatal(err)
	}
	record := `{"schema":7,"serial":"SN-WEB1","protect":true,"moon":["full"]}`
	s, err := Parse(both(b, func(c []byte) {
		clear(c[atRecord:atDigest])
		copy(c[atRecord:], record)
		binary.LittleEndian.PutUint32(c[atLength:], uint32(len(record)))
	}))
	if err != nil || s.Schema != 7 || s.Refusal("SN-WEB1", nil, advise) == "" {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestWhatCannotBeSealed(t *testing.T) {
	long := sample()
	long.Image = strings.Repeat("<", maxRecord/6+1) // six bytes each in JSON
	if _, err := Sign(long, key(t)); err == nil || !strings.Contains(err.Error(), "there is room for") {
		t.Error(err)
	}
	if _, err := Unsigned(long); err == nil {
		t.Error("a record was cut off")
	}
	for _, serial := range []string{"", "Default string", "x"} {
		if _, err := Sign(Record{Serial: serial}, key(t)); err == nil {
			t.Errorf("a server vouched for the serial number %q", serial)
		}
		if _, err := Unsigned(Record{Serial: serial, Protect: true}); err == nil {
			t.Errorf("a disk is protected that nobody can unseal: %q", serial)
		}
	}
	// the longest that imgbuild's own rules let in
	r := Record{Serial: strings.Repeat("Z", 63) + "1", Order: strings.Repeat("o", 64), Image: strings.Repeat("n", 64) + "/" + strings.Repeat("9", 64), Time: time.Now(), Protect: true}
	if s, err := Parse(signed(t, r, key(t))); err != nil || s.Image != r.Image {
		t.Errorf("%+v, %v", s, err)
	}
}

// advise tells how to break a seal, in the place of the installer.
func advise(sn string) string { return "break the seal of " + sn }

func TestWhichSealsStopAnInstallation(t *testing.T) {
	day := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		name   string
		seal   Record
		serial string
		unseal []string
		says   string
	}{
		{"one's own", Record{Serial: "SN-1A"}, "SN-1A", nil, ""},
		{"one's own with blanks", Record{Serial: "SN-1A"}, " SN-1A ", nil, ""},
		{"one's own, protected", Record{Serial: "SN-1A", Protect: true, Order: "o9", Image: "web/1"}, "SN-1A", nil, `its seal protects it (it was installed with "web/1" by order "o9" on 2026-11-21): if it is to be installed again, break the seal of SN-1A`},
		{"one's own, protected and covered", Record{Serial: "SN-1A", Protect: true}, "SN-1A", []string{"SN-9Z", "SN-1A"}, ""},
		{"protected, another covered", Record{Serial: "SN-1A", Protect: true}, "SN-1A", []string{"SN-9Z"}, "protects it"},
		{"protected, covered but for a letter", Record{Serial: "SN-1A", Protect: true}, "SN-1A", []string{"sn-1a", "SN-1", "SN-1AA", ""}, "protects it"},
		{"another's", Record{Serial: "SN-9Z", Image: "db/3"}, "SN-1A", nil, `another machine, with serial number "SN-9Z" (it was installed with "db/3" on 2026-11-21)`},
		{"another's, one's own covered", Record{Serial: "SN-9Z"}, "SN-1A", []string{"SN-1A"}, "break the seal of SN-9Z"},
		{"another's and covered", Record{Serial: "SN-9Z", Protect: true}, "SN-1A", []string{"SN-9Z"}, ""},
		{"another's for a machine without a number", Record{Serial: "SN-9Z"}, "", nil, "another machine"},
		{"of a machine without a number", Record{}, "SN-1A", nil, ""},
		{"of a board that was never numbered", Record{Serial: "Default string"}, "SN-1A", nil, ""},
		{"protected by hand, without a number", Record{Protect: true}, "SN-1A", []string{""}, "names no machine"},
	} {
		tt.seal.Time = day
		s := &Seal{Record: tt.seal}
		got := s.Refusal(tt.serial, tt.unseal, advise)
		if (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.says)
		}
	}
}

func TestASealThatWasBeingWrittenAnewRefusesForBothOfItsCopies(t *testing.T) {
	k := key(t)
	old := signed(t, Record{Serial: "SN-1A", Protect: true}, k)
	fresh := signed(t, Record{Serial: "SN-1A"}, k)
	for name, b := range map[string][]byte{
		"the first is new": append(bytes.Clone(fresh[:copySize]), old[copySize:]...),
		"the first is old": append(bytes.Clone(old[:copySize]), fresh[copySize:]...),
	} {
		s, err := Parse(b)
		if err != nil || s.Refusal("SN-1A", nil, advise) == "" || s.Refusal("SN-1A", []string{"SN-1A"}, advise) != "" || !s.SignedBy(k.Public()) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k := key(f)
	b := signed(f, sample(), k)
	f.Add(b, 0, []byte{})
	f.Add(b, atRecord, []byte(`{"schema":1,"serial":"SN-2B"}`))
	f.Add(make([]byte, Size), 0, []byte(magic))
	f.Add([]byte{}, 7, []byte("x"))
	f.Fuzz(func(t *testing.T, b []byte, at int, patch []byte) {
		if len(b) >= Size && at >= 0 && at < copySize { // with good checksums, so that what is behind them is reached
			b = both(bytes.Clone(b[:Size]), func(c []byte) { copy(c[at:], patch) })
		}
		s, err := Parse(b)
		if (s == nil) == (err == nil) {
			t.Fatalf("%+v, %v", s, err)
		}
		if s == nil {
			return
		}
		if s.SignedBy(k.Public()) && s.Record != (Record{Schema: 1, Serial: "SN-WEB1", Order: "o7k2", Image: "web/2.1", Time: s.Time, Protect: true}) {
			t.Errorf("the key vouches for what it never signed: %+v", s)
		}
		if s.Protect && s.Refusal(s.Serial, nil, advise) == "" {
			t.Errorf("a protected disk is not refused: %+v", s)
		}
	})
}
