package writer

import "os"

// link is rename in two steps, for where there is no call for it.
func link(from, to string) error {
	if err := os.Link(from, to); err != nil {
		return err
	}
	return os.Remove(from)
}
