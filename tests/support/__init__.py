"""What several tests share: files and entries that they make, and runs that they kill."""
