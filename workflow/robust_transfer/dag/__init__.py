"""From a configuration to entries, and from entries to the files that rules name."""
