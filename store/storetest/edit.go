package storetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
)

// block is a piece of a file, mostly in whole sectors as disks lose them.
func block(r *rand.Rand, size int) (from, to int) {
	if size == 0 {
		return 0, 0
	}
	unit := []int{1, 512, 4096}[r.IntN(3)]
	from = r.IntN(size) / unit * unit
	return from, min(size, from+unit*(1+r.IntN(8)))
}

// edit changes the contents of a file.
func edit(r *rand.Rand, path string) (Mutation, error) {
	if !regular(path) {
		return Mutation{"removed", []string{path}}, os.RemoveAll(path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Mutation{}, err
	}
	what, b := change(r, b)
	return Mutation{what, []string{path}}, os.WriteFile(path, b, 0o600)
}

func change(r *rand.Rand, b []byte) (string, []byte) {
	from, to := block(r, len(b))
	other, end := block(r, len(b))
	piece := append([]byte{}, b[from:to]...)
	kind := r.IntN(12)
	if len(b) == 0 {
		kind = 11
	}
	switch kind {
	case 0, 1, 2:
		bits := 1 + r.IntN(3)*r.IntN(4)
		for range bits {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
		}
		return fmt.Sprint(bits, " bits flipped"), b
	case 3:
		b[from] = byte(r.Uint32())
		return fmt.Sprint("byte ", from, " set"), b
	case 4:
		return fmt.Sprint("cut to ", from), b[:from]
	case 5:
		n := r.IntN(min(len(b), 64) + 1)
		return fmt.Sprint(n, " bytes torn off"), b[:len(b)-n]
	case 6:
		clear(b[from:to])
		return fmt.Sprint("zeros from ", from, " to ", to), b
	case 7:
		clear(b[from:])
		return fmt.Sprint("zeros from ", from), b
	case 8:
		for i := from; i < to; i++ {
			b[i] = byte(r.Uint32())
		}
		return fmt.Sprint("noise from ", from, " to ", to), b
	case 9:
		copy(b[other:], piece)
		return fmt.Sprint("bytes ", from, " to ", to, " over those from ", other), b
	case 10:
		return fmt.Sprint("bytes ", from, " to ", to, " twice"), append(append(append([]byte{}, b[:to]...), piece...), b[to:]...)
	default:
		tail := make([]byte, r.IntN(2000))
		if r.IntN(2) == 0 {
			tail = append(tail, b[other:end]...)
		}
		return fmt.Sprint(len(tail), " bytes appended"), append(b, tail...)
	}
}

// grow makes a file longer, without contents.
func grow(path string, by int64) error {
	if !regular(path) {
		return os.RemoveAll(path) // it was replaced before
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, info.Size()+by)
}

// odd is what is no file, and how it is made.
func odd(r *rand.Rand, path string) (string, func() error) {
	switch r.IntN(7) {
	case 0:
		return "an empty directory", func() error { return os.Mkdir(path, 0o700) }
	case 1:
		return "a directory", func() error {
			return errors.Join(os.Mkdir(path, 0o700), os.WriteFile(path+"/file", []byte("file"), 0o600))
		}
	case 2:
		return "a named pipe", func() error { return syscall.Mkfifo(path, 0o600) }
	case 3:
		return "a socket", func() error { return syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0) }
	case 4:
		return "a link that leads nowhere", func() error { return os.Symlink("nowhere", path) }
	case 5:
		return "a link to itself", func() error { return os.Symlink(path, path) }
	default:
		return "a link to what never ends", func() error { return os.Symlink("/dev/zero", path) }
	}
}
