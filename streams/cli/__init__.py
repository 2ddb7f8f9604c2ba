"""The command line: `dabbawala`, whose commands use a worker's HTTP API, and the commands it adds to Faust's."""
