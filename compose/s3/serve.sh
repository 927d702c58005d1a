#!/bin/sh
# Serves S3 at GATEWAY_PORT, with the bucket S3_BUCKET; SIGTERM ends it.
# Addresses are signed with the secret in /keys/s3. The first start makes it, and the controller reads it there.
set -u
key=/keys/s3
if [ ! -s $key ]; then
  (umask 077 && od -An -v -w24 -N24 -tx1 /dev/urandom | tr -d ' ' >$key.new && mv $key.new $key) || exit
fi
read -r AWS_SECRET_ACCESS_KEY <$key
export AWS_SECRET_ACCESS_KEY

rm -f /tmp/ready
/opt/s3/bin/ministack &
server=$!
trap 'kill -TERM "$server" 2>/dev/null' TERM INT

/opt/s3/bin/python -I - <<'END' || exit
import os, time
import botocore.config, botocore.exceptions, botocore.session

client = botocore.session.get_session().create_client(
    "s3",
    endpoint_url="http://127.0.0.1:" + os.environ["GATEWAY_PORT"],
    region_name="us-east-1",
    config=botocore.config.Config(connect_timeout=5, read_timeout=10, retries={"max_attempts": 0}),
)
give_up = time.monotonic() + 60
while True:
    try:
        client.create_bucket(Bucket=os.environ["S3_BUCKET"])
        break
    except client.exceptions.BucketAlreadyOwnedByYou:
        break
    except (botocore.exceptions.HTTPClientError, botocore.exceptions.ConnectionError) as error:
        if time.monotonic() > give_up:
            raise SystemExit("the server does not answer: %s" % error) from None
        time.sleep(0.2)
END

: >/tmp/ready # for the health check

# A signal ends a wait before the server has ended.
wait "$server"
status=$?
while kill -0 "$server" 2>/dev/null; do
  wait "$server"
  status=$?
done
exit "$status"
