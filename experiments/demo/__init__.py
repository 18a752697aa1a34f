"""`semcon demo`: a page on this machine in which an organism answers, is steered and is read token by token."""
