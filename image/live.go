package image

// What a live system needs besides its root file system, in bytes: the system itself while it starts, and what is under way while the
// root file system comes.
const (
	liveSystem   = 256 << 20
	LiveTransfer = 64 << 20
)

// LiveMemory is how much free memory a machine needs to run the release from memory, in bytes. What the running system writes comes on
// top.
func (m *Manifest) LiveMemory() int64 {
	return m.Files[RootfsFile].Size + liveSystem + LiveTransfer
}

// TreeManifest is where an exported tree has the manifest of its release, below its root; the signature lies beside it as TreeManifest.sig.
const TreeManifest = "var/lib/imgbuild/" + ManifestFile
