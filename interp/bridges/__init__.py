"""The same record and edit through other libraries, one module each."""
