package torrents

import (
	"net/http"
	"net/url"
	"strings"

	"imgbuild/image"
	"imgbuild/image/torrent"
	"imgbuild/server/boot"
	"imgbuild/server/releases"
)

// FilePrefix is where people's torrents are: GET /torrent/NAME/VERSION.torrent.
const FilePrefix = "/torrent/"

const suffix = ".torrent"

// ServeHTTP serves torrents that people start a client with: those of the releases, with this server as their tracker and web
// seed. The release's own rootfs.torrent is served as it was signed, with the other files of the release.
func (x *Index) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, file, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, FilePrefix), "/")
	version, named := strings.CutSuffix(file, suffix)
	if !ok || !named {
		http.Error(w, "there is no such file: ask for "+FilePrefix+"<name>/<version>"+suffix, http.StatusNotFound)
		return
	}
	t := x.Of(name + "/" + version)
	if t == nil {
		http.Error(w, "there is no release of this name and version with BitTorrent that may be installed", http.StatusNotFound)
		return
	}
	base, err := boot.Base(x.o.URL, r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	base = strings.TrimRight(base, "/")
	seed := base + releases.Prefix + url.PathEscape(name) + "/" + url.PathEscape(version) + "/" + image.RootfsFile
	m := torrent.Metainfo{Size: t.Info.Size, Pieces: t.Info.Pieces, Trackers: []string{base + torrent.AnnouncePath}, WebSeeds: []string{seed}}
	data, err := m.Marshal()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/x-bittorrent")
	h.Set("Content-Disposition", `attachment; filename="`+name+"-"+version+suffix+`"`)
	h.Set("Cache-Control", "no-store") // it depends on how the server was reached
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(data) // a client that has gone needs no answer
}
