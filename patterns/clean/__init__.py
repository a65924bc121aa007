"""What exporters leave behind: operations that change nothing, and chains that are one."""
