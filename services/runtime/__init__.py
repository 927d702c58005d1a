"""Foundation of every process: machine protocol, driver, process entry, log, rpc, backoff."""
