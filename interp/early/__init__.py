"""What can be wrong with the files of a model, found from headers and single values before anything is loaded."""
