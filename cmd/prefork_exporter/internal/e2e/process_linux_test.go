package e2e

import "syscall"

// endWithParent makes the kernel end a child when the tests end without their
// cleanup: killed, or out of time. A server's workers end without their master.
func endWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
