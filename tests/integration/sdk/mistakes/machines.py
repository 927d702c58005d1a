"""Mistakes in addresses, files and the settings of machines."""

from tests.integration.sdk.mistakes.mistake import Mistake

_DEAD = "127.0.0.1:9"

ADDRESSES = (
    *(
        (f"{words} --controller {_DEAD}", 1, "no controller answers", _DEAD, "shoal up")
        for words in (
            "status", "status latest", "logs a", "artifacts a", "get a", "cancel a", "finish a",
            "scale a b=2", "explain a/b", "events", "nodes", "drain n", "members", "tap a b.c",
            "record a b.c -o f", "submit good.yaml", "run good.yaml", "keys list", "graph a",
            "nodes adopt n", "nodes forget n", "status --watch", "nodes --watch",
        )
    ),
    ("status --controller localhost", 1, "address of a controller", "'localhost'", "127.0.0.1:7470"),
    ("status --controller http://h:7470", 1, "address of a controller", "'http://h:7470'", "HOST:PORT"),
    ("status --controller h:99999", 1, "address of a controller", "'h:99999'", "127.0.0.1:7470"),
)  # fmt: skip
"""Controllers that are not there."""

FILES = (
    ("validate qqq.yaml", 2, "no such file", "qqq.yaml", "known are"),
    ("validate godo.yaml", 2, "no such file", "godo.yaml", "did you mean 'good.yaml'?"),
    ("validate projcet", 2, "no such file", "projcet", "did you mean 'project'?"),
    ("validate empty", 2, "pipeline.yaml", "empty", "shoal new"),
    ("validate several", 2, "pipeline.yaml", "several", "name one of a.yaml, b.yaml"),
    ("validate binary.yaml", 2, "0xff", "binary.yaml:1:1", "save the file as UTF-8"),
    ("validate main.py", 2, "main.py", "mapping", "`name` and `jobs`"),
    ("validate nothing.yaml", 2, "nothing.yaml", "empty", "`name:` and `jobs:`"),
    ("submit qqq.yaml", 2, "no such file", "qqq.yaml", "known are"),
    ("submit empty", 2, "folder", "empty", "name another one"),
    ("submit bad.yaml good.yaml", 2, "bad.yaml:3", "'env'", "nothing was submitted"),
    ("run qqq.yaml", 2, "no such file", "qqq.yaml", "known are"),
    ("run several", 2, "pipeline.yaml", "several", "name one of a.yaml, b.yaml"),
    ("run empty", 2, "pipeline.yaml", "empty", "shoal new"),
    ("graph qqq.yaml", 2, "no such file", "qqq.yaml", "known are"),
    ("graph --svg nowhere/x.svg good.yaml", 1, "nowhere/x.svg", "No such file", "make the folder"),
    ("simulate qqq.yaml", 2, "no such file", "qqq.yaml", "known are"),
    ("new project", 1, "project", "pipeline.yaml", "choose another name"),
    ("new main.py", 2, "pipeline", "'main.py'", "main-py"),
    ("logs --save main.py {ended}", 2, "--save", "main.py", "is a file"),
    ("logs --save /proc/nope {ended}", 1, "/proc/nope", "cannot be written", "--save"),
)  # fmt: skip
"""Files and folders."""

MACHINES = (
    ("drain node-9", 1, "node", "'node-9'", "did you mean 'node-1'?"),
    ("drain zebra", 1, "node", "'zebra'", "known are node-1"),
    ("drain --undo zebra", 1, "node", "'zebra'", "known are node-1"),
    ("nodes adopt zebra", 1, "node", "'zebra'", "known are node-1"),
    ("nodes forget zebra", 1, "node", "'zebra'", "known are node-1"),
    ("nodes forget node-1", 1, "node-1", "not gone", "shoal drain node-1"),
    ("nodes forget", 2, "argument", "NODE", "shoal nodes forget --help"),
    ("nodes adopt node-1", 1, "node-1", "not quarantined", "`shoal nodes`"),
    ("nodes adpot node-1", 2, "command", "'adpot'", "did you mean 'adopt'?"),
    ("nodes --controller 127.0.0.1:9 forget node-1", 2, "--controller", "'forget'", "write it behind"),
    ("nodes --watch adopt node-1", 2, "--watch", "'adopt'", "leave it out"),
    ("keys use 5f3a", 1, "no keys", "'5f3a'", "the controller has"),
    ("simulate --agents 0 good.yaml", 2, "--agents", "0", "1<=x<=64"),
    ("simulate --fault 'kill zz@3s' good.yaml", 2, "no job", "'zz'", "known are a, b"),
    ("simulate --fault 'explode a@3s' good.yaml", 2, "--fault", "'explode'", "known are"),
    ("simulate --fault 'kill a' good.yaml", 2, "--fault", "'kill a'", "kill"),
    ("simulate --fault 'drop a-c 2s' good.yaml", 2, "two jobs", "'a-c'", "its jobs are a, b"),
    ("simulate --fault 'kill a@soon' good.yaml", 2, "--fault", "'soon'", "for example 90s"),
    ("simulate --out project good.yaml", 1, "project", "no simulation made it", "--out"),
    ("simulate hand.yaml", 2, "me", "`shoal send`", "`run`"),
    ("simulate --name 'Bad Name' good.yaml", 2, "--name", "'Bad Name'", "use a lower-case letter"),
    ("simulate --env LIMIT good.yaml", 2, "--env", "'LIMIT'", "KEY=VALUE"),
    ("simulate --env SHOAL_X=2 good.yaml", 2, "--env", "SHOAL_", "choose another one"),
    ("simulate --pace original good.yaml", 2, "--pace", "original", "add --replay"),
    ("up --agents 0", 2, "--agents", "0", "1<=x<=64"),
    ("up --name Bad", 2, "cluster", "'Bad'", "use a lower-case letter"),
    ("down nowhere", 2, "cluster", "'nowhere'", "those that run: local"),
    ("up --port 99999", 2, "--port", "99999", "0<=x<=65535"),
    ("controller --state s --grpc nonsense", 2, "--grpc", "'nonsense'", "10.0.0.1:7470"),
    ("controller --state s --grpc 1.2.3.4:99999", 2, "--grpc", "'1.2.3.4:99999'", "HOST:PORT"),
    ("controller --state s --archive ftp://x", 2, "archive", "'ftp://x'", "file:///folder"),
    ("controller --state s --archive 's3://b?zone=1'", 2, "archive", "'zone'", "use endpoint and region"),
    ("controller --state s --mqtt http://h", 2, "broker", "'http'", "mqtt://"),
    ("controller --state s --name 'Big Boss'", 2, "controller", "'Big Boss'", "--name"),
    ("controller --state s --lease-seconds 1 --heartbeat-seconds 2", 2, "--heartbeat-seconds", "2", "well below"),
    ("controller --state s --unplaced-seconds 0", 2, "--unplaced-seconds", "0", "above 0"),
    ("controller --state s --unplaced-seconds soon", 2, "--unplaced-seconds", "'soon'", "not a valid float"),
    ("controller --state s --still-seconds -1", 2, "--still-seconds", "-1", "above 0"),
    ("controller --state s --still-seconds nan", 2, "--still-seconds", "nan", "above 0"),
    ("controller --state s --url-expires-seconds 5", 2, "--url-expires-seconds", "5", "a minute to a week"),
    ("controller --state s --join nowhere", 2, "--join", "'nowhere'", "HOST:PORT"),
    ("controller --state s --serf-rpc 0.0.0.0:7373", 2, "--serf-rpc", "0.0.0.0:7373", "--serf-rpc-auth"),
    ("controller --state s --config nowhere.toml", 2, "--config", "'nowhere.toml'", "does not exist"),
    ("agent --state s --name 'Pi 1'", 2, "node", "'Pi 1'", "--name"),
    ("agent --state s --keep-failed much", 2, "size", "'much'", "write a number with K, M, G"),
    ("agent --state s --keep-failed-for soon", 2, "duration", "'soon'", "for example 90s"),
    ("agent --state s --upload-rate fast", 2, "rate", "'fast'", "as in 5MB/s"),
    ("agent --state s --upload-rate 5", 2, "rate", "'5'", "1KB/s or more"),
    ("agent --state s --spool-limit much", 2, "size", "'much'", "write a number with K, M, G"),
    ("agent --state s --controller nowhere", 2, "address", "'nowhere'", "HOST:PORT"),
    ("agent --state s --label role", 2, "label", "'role'", "role=camera"),
    ("agent --state s --memory lots", 2, "size", "'lots'", "write a number with K, M, G"),
    ("agent --state s --cpus many", 2, "--cpus", "'many'", "float"),
    ("agent --state s --drain", 2, "--drain", "--down", "give both"),
    ("agent --state s --streams x", 2, "address", "'x'", "HOST:PORT"),
)  # fmt: skip
"""Boards, clusters, and the processes on them."""

ALL = tuple(Mistake(*row) for row in (*ADDRESSES, *FILES, *MACHINES))
"""All of them."""
