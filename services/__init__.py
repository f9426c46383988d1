"""One module per process: shells that wire and run, without rules of their own."""
