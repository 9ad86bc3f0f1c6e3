package profiles

import (
	"crypto/x509"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"imgbuild/profiles/strict"
)

// hostFiles checks that what the profile takes from the build host is there: keys, CAs, sources and scripts.
func (x *crossChecker) hostFiles() {
	for _, id := range slices.Sorted(maps.Keys(x.p.Repositories)) {
		r := x.p.Repositories[id]
		for i, k := range r.GPGKeys {
			x.gpgKey([]string{"repositories", id, "gpgkeys", strconv.Itoa(i)}, k, r)
		}
		if r.CACert != "" {
			x.caCert([]string{"repositories", id, "cacert"}, r.CACert)
		}
	}
	for i, c := range x.p.Initramfs.CACerts {
		x.caCert([]string{"initramfs", "cacerts", strconv.Itoa(i)}, c)
	}
	for _, p := range slices.Sorted(maps.Keys(x.p.Files)) {
		path := []string{"files", p, "source"}
		source := x.p.Files[p].Source
		if source == "" {
			continue
		}
		st, err := os.Stat(source)
		switch {
		case err != nil:
			x.at(path, "%s is %s, and %v", keyPath(path), source, strict.Plain(err))
		case !st.Mode().IsRegular() && !st.IsDir():
			x.at(path, "%s is %s, which is neither a file nor a directory", keyPath(path), source)
		}
	}
	for _, list := range x.p.allScripts() {
		for i, s := range list.scripts {
			if s.File == "" {
				continue
			}
			path := []string{list.key, strconv.Itoa(i), "file"}
			if _, err := strict.ReadLimited(s.File); err != nil {
				x.at(path, "%s is %s, and %v", keyPath(path), s.File, err)
			}
		}
	}
}

func (x *crossChecker) gpgKey(path []string, k GPGKey, r Repository) {
	if k.Shipped != "" && k.Fingerprint == "" && !x.isBad(append(slices.Clone(path), "fingerprint")...) {
		x.at(path, "%s takes the shipped key %s without its fingerprint; write what you trust: %s", keyPath(path), k.Shipped, shippedPrint(k.Shipped))
		return
	}
	if k.Shipped == "" && k.File == "" || k.Shipped != "" && k.File != "" || x.isBad(append(slices.Clone(path), "fingerprint")...) {
		return // reported already
	}
	name, key := k.Shipped, "shipped"
	var data []byte
	var err error
	if k.Shipped != "" {
		data, err = Key(k.Shipped)
	} else {
		name, key = k.File, "file"
		data, err = strict.ReadLimited(k.File)
		if _, missing := os.Lstat(k.File); errors.Is(missing, fs.ErrNotExist) && notMadeYet(r) {
			return
		}
	}
	if err == nil {
		err = k.verify(data)
	}
	if err != nil {
		x.at(append(path, key), "%s is %s, and %v", keyPath(append(path, key)), name, err)
	}
}

// notMadeYet says whether a repository is one of this host that is still to be made, as the stand-in is. Its key comes with
// it, so the builder says what is missing before it begins.
func notMadeYet(r Repository) bool {
	if len(r.BaseURL) == 0 {
		return false
	}
	for _, u := range r.BaseURL {
		dir, local := strings.CutPrefix(u, "file://")
		if !local || strings.Contains(dir, "$") {
			return false
		}
		if _, err := os.Stat(filepath.Join(dir, "repodata", "repomd.xml")); !errors.Is(err, fs.ErrNotExist) {
			return false
		}
	}
	return true
}

func shippedPrint(name string) string {
	data, err := Key(name)
	if err != nil {
		return err.Error()
	}
	prints, err := fingerprints(data)
	if err != nil {
		return err.Error()
	}
	return strings.Join(prints, " ")
}

func (x *crossChecker) caCert(path []string, file string) {
	data, err := strict.ReadLimited(file)
	if err == nil && !x509.NewCertPool().AppendCertsFromPEM(data) {
		err = errors.New("it holds no certificate in PEM form")
	}
	if err != nil {
		x.at(path, "%s is %s, and %v", keyPath(path), file, err)
	}
}
