"""Foundation of every process: the machine protocol, its driver, process entry, log, rpc, backoff."""
