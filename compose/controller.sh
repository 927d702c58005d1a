#!/bin/sh
# The controller of the compose cluster. At each start it hands a join token to the boards, over the volume `tokens`,
# and prints the line by which this host logs in.
set -eu
ready=/run/shoal/ready.json
token=/tokens/boards.token
said=/run/shoal/said

new_token() {
  shoal token create --role node --name 'board-*' --ttl 24h --uses 100 >$token.new && mv $token.new $token
}

make_token() {
  until new_token 2>$said; do
    echo "the boards have no new token, and this is tried again: $(cat $said)" >&2
    sleep 2
  done
}

hand_over() {
  until [ -s $ready ]; do sleep 0.2; done
  umask 077
  make_token
  # An id says which container this is, whatever the project is called and whichever compose has started it.
  read -r container </etc/hostname
  echo "to log in on this host:  docker exec $container shoal token create --role submitter" \
    "| shoal login --controller ${SHOAL_HOST:-127.0.0.1}:7470 --token-file -"
  while sleep 43200; do make_token; done # for boards that are added later
}

# Without another archive it is the S3 server of this cluster, which boards and this host reach under one address.
if [ -z "${SHOAL_CONTROLLER_ARCHIVE:-}" ]; then
  export SHOAL_CONTROLLER_ARCHIVE='s3://shoal/main?endpoint=http://s3:9000'
  if [ -z "${SHOAL_CONTROLLER_OBJECTS_URL:-}" ]; then
    case ${SHOAL_HOST:-localhost} in
      localhost | 127.*) host=$S3_ADDRESS ;; # which boards and this host reach, and nothing else does
      *) host=$SHOAL_HOST ;;
    esac
    export SHOAL_CONTROLLER_OBJECTS_URL="http://$host:9000"
  fi
  AWS_ACCESS_KEY_ID=shoal
  read -r AWS_SECRET_ACCESS_KEY </keys/s3
  export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
fi

rm -f $ready
hand_over &
exec shoal controller --ready-file $ready
