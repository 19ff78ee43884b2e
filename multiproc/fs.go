package multiproc

import (
	"errors"
	"io"
	"time"
)

// errNotRegular says that a name is not that of a regular file.
var errNotRegular = errors.New("not a regular file")

// filesystem is where metric files are: the operating system's, or in tests one
// that fails.
type filesystem interface {
	// openDir opens a directory for listing.
	openDir(path string) (directory, error)
}

// directory is an open directory. Its methods are for one goroutine, but open,
// which is for any number.
type directory interface {
	io.Closer
	// stat tells which directory this is.
	stat() (dirStat, error)
	// list calls visit for each name. visit must not keep name.
	list(visit func(name []byte, inode uint64, regular bool)) error
	// reserve makes room for n more open files at once, where that saves time.
	reserve(n int)
	// open opens a regular file for reading. It does not follow links and does
	// not block. The error wraps errNotRegular, or an errno.
	open(name string) (handle, fileID, error)
}

// handle is an open metric file.
type handle interface {
	io.ReaderAt
	io.Closer
}

// dirStat identifies a directory and the state of its list of names.
type dirStat struct {
	dirID
	changed time.Time // when a name last came or went
	known   bool      // its file system is of a kind that answers
}

// dirID identifies a directory.
type dirID struct{ device, inode uint64 }

// fileID identifies a file, also after its inode's number was given to another.
type fileID struct {
	device, inode uint64
	born          int64 // nanoseconds since the epoch; 0 where the file system does not tell
}
