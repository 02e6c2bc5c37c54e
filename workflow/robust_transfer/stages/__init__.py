"""One module for each rule: the command, what it reads, what it writes. No stage imports another."""
