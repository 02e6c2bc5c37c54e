"""Claims tested on a results table: what they look at, the rules, and the ledger of verdicts."""
