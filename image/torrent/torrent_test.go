package torrent

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// content are bytes that are the same in every run.
func content(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	_, _ = r.Read(b) // it never fails
	return b
}

// hashed is the metainfo of data that is written in odd portions.
func hashed(data []byte) *Metainfo {
	h := NewHasher()
	for n := 1; len(data) > 0; n = n*3 + 1 {
		k := min(n, len(data))
		_, _ = h.Write(data[:k]) // it never fails
		data = data[k:]
	}
	return h.Metainfo()
}

func TestPiecesAreThoseOfTheFileHoweverItIsWritten(t *testing.T) {
	for _, n := range []int{1, PieceSize - 1, PieceSize, PieceSize + 1, 3*PieceSize + 17, 4 * PieceSize} {
		data := content(n)
		m := hashed(data)
		var want []byte
		for at := 0; at < n; at += PieceSize {
			d := sha1.Sum(data[at:min(n, at+PieceSize)])
			want = append(want, d[:]...)
		}
		if m.Size != int64(n) || !bytes.Equal(m.Pieces, want) {
			t.Errorf("%d bytes: size %d, %d digests", n, m.Size, len(m.Pieces)/sha1.Size)
		}
	}
}

func TestTheFileIsThatOfBEP3(t *testing.T) {
	m := hashed([]byte("hello"))
	digest := sha1.Sum([]byte("hello"))
	info := "d6:lengthi5e4:name15:rootfs.squashfs12:piece lengthi262144e6:pieces20:" + string(digest[:]) + "7:privatei1ee"
	for name, test := range map[string]struct {
		trackers, seeds []string
		want            string
	}{
		"alone":        {nil, nil, "d4:info" + info + "e"},
		"one tracker":  {[]string{"http://a/x"}, nil, "d8:announce10:http://a/x4:info" + info + "e"},
		"two trackers": {[]string{"http://a/x", "udp://b:1"}, nil, "d8:announce10:http://a/x13:announce-listll10:http://a/xel9:udp://b:1ee4:info" + info + "e"},
		"a web seed":   {nil, []string{"http://c/r"}, "d4:info" + info + "8:url-listl10:http://c/ree"},
	} {
		t.Run(name, func(t *testing.T) {
			m.Trackers, m.WebSeeds = test.trackers, test.seeds
			got, err := m.Marshal()
			if err != nil || string(got) != test.want {
				t.Fatalf("got %q, %v", got, err)
			}
			if m.Hash() != sha1.Sum([]byte(info)) || m.Hash().String() != fmt.Sprintf("%x", sha1.Sum([]byte(info))) {
				t.Errorf("the info-hash is %s", m.Hash())
			}
			back, err := Parse(got)
			if err != nil || !reflect.DeepEqual(back, m) {
				t.Errorf("reading it again gives %+v, %v", back, err)
			}
		})
	}
}

func TestWhatOtherProgramsAddIsPassedOver(t *testing.T) {
	m := hashed([]byte("hello"))
	plain, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	dressed := "d8:announce0:10:created by5:other13:creation datei1e8:encoding5:UTF-8" + strings.TrimSuffix(string(plain[1:]), "e") + "8:url-list10:http://c/re"
	back, err := Parse([]byte(dressed))
	if err != nil {
		t.Fatal(err)
	}
	if back.Hash() != m.Hash() || len(back.Trackers) != 0 || !reflect.DeepEqual(back.WebSeeds, []string{"http://c/r"}) {
		t.Errorf("got %+v", back)
	}
}

func TestWhatIsNoRootFileSystemIsRefused(t *testing.T) {
	digest := strings.Repeat("x", 20)
	info := func(fields string) string { return "d4:infod" + fields + "ee" }
	good := "6:lengthi5e4:name15:rootfs.squashfs12:piece lengthi262144e6:pieces20:" + digest + "7:privatei1e"
	if _, err := Parse([]byte(info(good))); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ data, want string }{
		"no bencoding":             {"<html>", "no value begins with"},
		"a list":                   {"le", "it is no dictionary"},
		"no info":                  {"de", "it has no info"},
		"an info that is a text":   {"d4:info1:xe", "it has no info"},
		"another file":             {info(strings.Replace(good, "rootfs.squashfs", "rootfs.squashfz", 1)), "not named rootfs.squashfs"},
		"other pieces":             {info(strings.Replace(good, "262144", "262145", 1)), "its pieces do not have 262144 bytes"},
		"public":                   {info(strings.Replace(good, "privatei1e", "privatei0e", 1)), "it is not private"},
		"several files":            {info("5:filesle" + good), `the key "files"`},
		"no length":                {info(strings.Replace(good, "6:lengthi5e", "", 1)), "its file has no length"},
		"a length that is a text":  {info(strings.Replace(good, "i5e", "1:5", 1)), "its file has no length"},
		"an empty file":            {info(strings.Replace(good, "i5e", "i0e", 1)), "its file has 0 bytes"},
		"a file that is too large": {info(strings.Replace(good, "i5e", "i274877906945e", 1)), "its file has 274877906945 bytes"},
		"too few digests":          {info(strings.Replace(good, "i5e", "i262145e", 1)), "its digests have 20 bytes and a file of 262145 bytes needs 40"},
		"no digests":               {info(strings.Replace(good, "6:pieces20:"+digest, "", 1)), "it has no digests"},
		"a tracker that is none":   {"d8:announce4:file4:infod" + good + "ee", `its tracker "file" is no address`},
		"a tracker of WebTorrent":  {"d8:announce6:wss://4:infod" + good + "ee", `its tracker "wss://" is no address`},
		"tiers that are no lists":  {"d13:announce-listli1ee4:infod" + good + "ee", "announce-list is neither"},
		"a list of numbers":        {"d4:infod" + good + "e8:url-listli1eee", "url-list has something else than addresses"},
		"a web seed of FTP":        {"d4:infod" + good + "e8:url-list7:ftp://xe", `its web seed "ftp://x" is no address`},
		"a hundred trackers":       {"d13:announce-listl" + strings.Repeat("l8:http://xe", 100) + "e4:infod" + good + "ee", "it has 100 of the kind tracker"},
		"too much":                 {strings.Repeat("x", MaxSize+1), "it has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := Parse([]byte(test.data)); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %+v and %v, want an error with %s", m, err, test.want)
			}
		})
	}
	if _, err := (&Metainfo{Size: 5, Pieces: []byte(digest), Trackers: []string{"nowhere"}}).Marshal(); err == nil {
		t.Error("a tracker that is none was written")
	}
}

func FuzzParse(f *testing.F) {
	m := hashed(content(PieceSize + 1))
	for _, lists := range [][]string{nil, {"http://a/announce"}, {"http://a/announce", "https://b/announce"}} {
		m.Trackers, m.WebSeeds = lists, lists
		data, err := m.Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Parse(data)
		if err != nil {
			return
		}
		again, err := m.Marshal()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		back, err := Parse(again)
		if err != nil || !reflect.DeepEqual(back, m) {
			t.Errorf("%+v is read again as %+v, %v", m, back, err)
		}
	})
}
