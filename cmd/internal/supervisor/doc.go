// Package supervisor is the master of supervise: it keeps a number of workers
// running, and replaces, stops and counts them. It promises nothing to other
// modules, and knows nothing of metrics.
//
// What holds:
//
//   - One goroutine, that of Run, owns all state. Everything else sends it events.
//   - A process goes through the states of the table in state.go, and no others. A
//     slot has one current process; its predecessor, on its way out, is counted with
//     those that leave.
//   - Every process that was started is waited for, and counted when it has ended. Until
//     it is counted it is not reaped: a program that takes over finds each end.
//   - Workers are children of one thread, the first one of the process where it is a
//     master's: they end when it does, and it lasts when another program takes its place.
//   - Nobody is waited for but the kernel: not who reads a log, not the sidecar, not a
//     worker.
//   - Every state that ends by itself has a deadline, and time is looked at in one
//     place, so that tests run in virtual time.
package supervisor
