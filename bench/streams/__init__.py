"""P1, P3, P6, P9, P15: records from job to job over two nodes, against plainer ways."""
