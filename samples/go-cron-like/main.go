// A program in Go that does a thing every so often, as its arguments say, and then ends.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	every := flag.Duration("every", time.Second, "how long to wait between two runs")
	times := flag.Int("times", 3, "how often to run; 0 runs for ever")
	flag.Parse()
	if flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: go-cron-like [--every=1s] [--times=3] WORD...")
		os.Exit(64)
	}
	for run := 1; *times == 0 || run <= *times; run++ {
		fmt.Printf("run %d: %v\n", run, flag.Args())
		if run != *times {
			time.Sleep(*every)
		}
	}
}
