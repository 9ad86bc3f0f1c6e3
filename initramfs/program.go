package initramfs

import (
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// errNotELF is a file that the kernel would not run as a program by itself.
var errNotELF = errors.New("not an ELF program or library; a script cannot be a tool, as there is no shell to run it")

// program is what a dynamic loader has to know of a program or library.
type program struct {
	class    elf.Class
	machine  elf.Machine
	interp   string   // PT_INTERP: the loader itself, "" for libraries and static programs
	needed   []string // DT_NEEDED
	runPaths []string // DT_RUNPATH, or DT_RPATH when there is none; $ORIGIN not yet replaced
	versions map[string][]string
	provides []string // symbol versions it defines, such as GLIBC_2.34
}

// readProgram reads the headers of an ELF file.
func readProgram(r io.ReaderAt) (program, error) {
	var magic [4]byte
	if _, err := r.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return program{}, errNotELF
	}
	parsed, err := elf.NewFile(r)
	if err != nil {
		return program{}, err
	}
	p := program{class: parsed.Class, machine: parsed.Machine, versions: map[string][]string{}}
	for _, segment := range parsed.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		if segment.Filesz > 4096 {
			return program{}, fmt.Errorf("its loader's name is %d bytes long", segment.Filesz)
		}
		name := make([]byte, segment.Filesz)
		if _, err := io.ReadFull(segment.Open(), name); err != nil {
			return program{}, fmt.Errorf("read the loader's name: %w", err)
		}
		p.interp = strings.TrimRight(string(name), "\x00")
	}
	if p.needed, err = parsed.DynString(elf.DT_NEEDED); err != nil {
		return program{}, fmt.Errorf("read the names of its libraries: %w", err)
	}
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		paths, err := parsed.DynString(tag)
		if err != nil {
			return program{}, fmt.Errorf("read its library path: %w", err)
		}
		for _, list := range paths {
			p.runPaths = append(p.runPaths, strings.Split(list, ":")...)
		}
		if len(p.runPaths) > 0 {
			break
		}
	}
	// A file without versions, or with damaged ones, only goes unchecked here.
	if needs, err := parsed.DynamicVersionNeeds(); err == nil {
		for _, need := range needs {
			for _, version := range need.Needs {
				if version.Flags&elf.VER_FLG_WEAK == 0 {
					p.versions[need.Name] = append(p.versions[need.Name], version.Dep)
				}
			}
		}
	}
	if defined, err := parsed.DynamicVersions(); err == nil {
		for _, version := range defined {
			p.provides = append(p.provides, version.Name)
		}
	}
	return p, nil
}

// searchDirs are the directories of RUNPATH with $ORIGIN replaced by the directory the file lies in.
func (p program) searchDirs(dir string) []string {
	var dirs []string
	for _, d := range p.runPaths {
		lib := "lib"
		if p.class == elf.ELFCLASS64 {
			lib = "lib64"
		}
		d = strings.NewReplacer("$ORIGIN", dir, "${ORIGIN}", dir, "$LIB", lib, "${LIB}", lib).Replace(d)
		if path.IsAbs(d) {
			dirs = append(dirs, path.Clean(d))
		}
	}
	return dirs
}
