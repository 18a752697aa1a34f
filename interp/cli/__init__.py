"""The library's command line: record, generate, describe a store."""
