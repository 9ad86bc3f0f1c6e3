// Package torrent gets the root file system by BitTorrent, and passes it on: rootfs.torrent and the addresses of peers come in,
// chunks go into a blob.Blob, and what the blob has goes out to peers that ask (BEP 3, 6, 10, 23, 27, 48). The client is
// anacrolix/torrent; it is left out by the build tag notorrent.
//
// It asks for pieces in the order in which the blob wants its chunks, and from the planned peer just ahead of need: see want.go for
// why. A piece is passed on as soon as its SHA-1 is that of the metainfo, which the signed manifest vouches for; a chunk
// gets into the blob only by its SHA-256.
//
// It never writes a file, never looks for peers but where it was told to (no DHT, peer exchange, UPnP, WebTorrent or µTP), never
// reads a web seed (package fetch does that), and never holds more than some ten chunks besides the blob's.
package torrent

import (
	"errors"
	"time"

	"imgbuild/installer/blob"
	"imgbuild/installer/report"
)

// ErrNotBuilt is what New returns in an installer that was built without BitTorrent.
var ErrNotBuilt = errors.New("this installer was built without BitTorrent: build the image with initramfs: torrent: true, or use another transport")

// sourceID is what the peers together are called among the sources of a transfer.
const sourceID = "torrent"

// Options say what is to be got, and how. Blob, Metainfo and Report are required.
type Options struct {
	Blob *blob.Blob
	// Metainfo is rootfs.torrent, verified by the manifest.
	Metainfo []byte
	Report   report.Reporter
	// Listen is the address to take connections at; port 0, or nothing, takes any.
	Listen string
	// Trackers are asked besides those of the metainfo; http, https or udp.
	Trackers []string
	// Silence is how long claimed chunks may bring no byte before others may fetch them: while a peer is connected, 15 s;
	// a third of that while none is.
	Silence time.Duration
}

// Stats say how a client fares.
type Stats struct {
	Peers int // connected
	// Ready is true if a connected peer has something that the blob has not.
	Ready bool
	// Quiet is how long chunks that were asked for have brought no byte; 0 if none are asked for.
	Quiet    time.Duration
	Got      int64   // bytes of chunks that were good
	Sent     int64   // bytes of pieces
	SendRate float64 // bytes a second, smoothed
}
