//go:build !linux

package collector

import "errors"

func readWorker(int) (workerProcess, error) {
	return workerProcess{}, errors.New("worker processes are read on Linux only")
}
