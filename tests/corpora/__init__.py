"""Models made for tests: files that are bad, and files that are odd but good."""
