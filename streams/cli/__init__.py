"""The command line: `dabbawala`, whose commands ask a worker over HTTP, and what it adds to `faust -A streams.app`."""
