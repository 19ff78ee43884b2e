// Package multiproc merges the metric files that the workers of a pre-fork
// server write: those of client_python, prometheus-client-mmap and client_ruby.
// FORMAT.md draws the files.
//
// A [Merger] follows directories and returns a [Snapshot] of them; what it does
// on the way:
//
//	scan        list the directories: files that came and went
//	read        bring the values of each file up to date (file.go)
//	plan        only when files or entries came or went: decide where each
//	            entry goes (binding.go, family.go) and lay out the families
//	accumulate  add up
//
// The package promises nothing to other modules: it may change with any version.
package multiproc
