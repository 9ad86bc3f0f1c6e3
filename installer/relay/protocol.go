// Package relay serves this machine's share of a growing, verified file to other machines that install the same release:
// requests for ranges with tickets come in, bytes of chunks that a Blob vouches for go out.
//
// It never serves a byte that has not been verified, never fetches or evicts anything on behalf of a reader, never reads
// a request's body, and answers nobody without a ticket.
//
// A reader asks with GET (or HEAD) plan.ChunksPath, `Authorization: Bearer <ticket>` and one `Range: bytes=a-b`, over one
// connection, range after range. The answer is 206 with Content-Range (RFC 9110, 14.4) and the bytes as they are verified
// here: what is still on its way is waited for, no longer than Hold. If it does not come within Hold in the midst of a
// body, the body ends early and the connection is closed; the reader keeps what came and asks for the rest. Without a good
// ticket the answer is 401, and what the server cannot serve now is 503 with the header Header, whose values say what to do.
package relay

import "time"

// Header is the header of a 503 that says why there are no bytes.
const Header = "Imgbuild-Relay"

// The values of Header.
const (
	// Waiting: the first chunk of the range is wanted here too, and has not come within Hold. Ask again at once.
	Waiting = "waiting"
	// Gone: the first chunk of the range was here and was dropped, or will not be fetched. Ask another source for it.
	Gone = "gone"
	// Busy: the machine serves as many readers as it will, or its transfer has ended. Ask another source.
	Busy = "busy"
)

// Hold is how long a chunk that is not here yet is waited for.
const Hold = 3 * time.Second
