// Package within finds paths inside the root directory of an image. A path as the image sees it comes in; one without
// symbolic links, relative to the root directory, goes out.
//
// It never leads out of the root directory, whatever links the image's packages or scripts have made: an absolute link
// starts at the image's root, as it would if the image ran.
package within

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// maxLinks is how many symbolic links a path may lead over, as in the kernel.
const maxLinks = 40

// Resolve follows the links in name and returns a path relative to root that has none, but for what does not exist and,
// unless last is set, the last element. The root itself is ".".
func Resolve(root *os.Root, name string, last bool) (string, error) {
	todo := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
	done, links := "", 0
	for len(todo) > 0 {
		e := todo[0]
		todo = todo[1:]
		if e == "" || e == "." {
			continue
		}
		if e == ".." {
			done = strings.TrimPrefix(path.Dir("/"+done), "/")
			continue
		}
		next := path.Join(done, e)
		if len(todo) == 0 && !last {
			done = next
			break
		}
		st, err := root.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			// path.Join would fold what is left over too early for links, but nothing below can be one.
			return path.Join(append([]string{next}, todo...)...), nil
		}
		if err != nil {
			return "", err
		}
		if st.Mode()&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("follow %s in the image: too many symbolic links", name)
		}
		to, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(to) {
			done = ""
		}
		todo = append(strings.Split(to, "/"), todo...)
	}
	if done == "" {
		return ".", nil
	}
	return done, nil
}
