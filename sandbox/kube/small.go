//go:build small

package main

// runComponent knows no upstream program in this build.
func runComponent(string) (int, bool) { return 0, false }
