package main

import (
	"context"
	"fmt"
	"os"
	"runtime/pprof"

	"imgbuild/installer/unpack"
)

func main() {
	f, err := os.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	st, _ := f.Stat()
	if p := os.Getenv("PROF"); p != "" {
		o, _ := os.Create(p)
		pprof.StartCPUProfile(o)
		defer pprof.StopCPUProfile()
	}
	s, err := unpack.Unpack(context.Background(), f, st.Size(), os.Args[2], unpack.Options{})
	fmt.Printf("%+v %v\n", s, err)
}
