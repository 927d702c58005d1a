"""Archive and inputs of jobs at the strict S3 server: tests of the other lanes, with radosgw in place of ministack."""
