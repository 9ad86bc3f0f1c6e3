package seed

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/anacrolix/torrent/metainfo"
	"github.com/anacrolix/torrent/storage"
)

// errReadOnly is why nothing is taken from peers.
var errReadOnly = errors.New("releases are only read")

// file is a root file system as the library sees it: all of it is there.
type file struct{ *os.File }

// OpenTorrent implements storage.ClientImpl.
func (f *file) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{
		Piece: func(p metainfo.Piece) storage.PieceImpl { return piece{f.File, p.Offset()} },
		Close: f.Close,
	}, nil
}

// piece implements storage.PieceImpl. Peers check what they get, and nothing else is believed for it.
type piece struct {
	f   *os.File
	off int64
}

func (p piece) ReadAt(b []byte, off int64) (int, error) { return p.f.ReadAt(b, p.off+off) }
func (p piece) WriteAt([]byte, int64) (int, error)      { return 0, errReadOnly }
func (p piece) MarkComplete() error                     { return nil }
func (p piece) MarkNotComplete() error                  { return nil }
func (p piece) Completion() storage.Completion          { return storage.Completion{Ok: true, Complete: true} }

// nowhere is where the library keeps torrents that say no other place. There are none.
type nowhere struct{}

// OpenTorrent implements storage.ClientImpl.
func (nowhere) OpenTorrent(context.Context, *metainfo.Info, metainfo.Hash) (storage.TorrentImpl, error) {
	return storage.TorrentImpl{}, errReadOnly
}

// listener gives the library its connections. The library asks again at once after an error, which is a busy loop.
type listener struct {
	net.Listener
	ended context.Context
}

func (l listener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		select {
		case <-l.ended.Done():
		case <-time.After(100 * time.Millisecond): // too many open files, most likely
		}
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		// A peer that is gone without a word is noticed; where that fails, the kernel's own times hold.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
	}
	return conn, nil
}
