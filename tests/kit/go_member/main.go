// Members of HashiCorp's memberlist in one process, driven by lines on stdin; a test partner.
//
// It prints "ready NAME PORT" for each member, then "event SECONDS OBSERVER KIND NAME".
// Commands: "join N ADDRESS", "members N", "leave N", "kill N", "meta N TEXT", "quit".
package main

import (
	"bufio"
	"encoding/hex"
	"flag"
	"fmt"
	"io/ioutil"
	"log"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

var printing sync.Mutex

func say(format string, values ...interface{}) {
	printing.Lock()
	defer printing.Unlock()
	fmt.Printf(format+"\n", values...)
}

type watcher struct{ name string }

func (w *watcher) tell(kind string, node *memberlist.Node) {
	now := float64(time.Now().UnixNano()) / 1e9
	say("event %.6f %s %s %s", now, w.name, kind, node.Name)
}
func (w *watcher) NotifyJoin(node *memberlist.Node)   { w.tell("join", node) }
func (w *watcher) NotifyLeave(node *memberlist.Node)  { w.tell("leave", node) }
func (w *watcher) NotifyUpdate(node *memberlist.Node) { w.tell("update", node) }

type meta struct {
	sync.Mutex
	bytes []byte
}

func (m *meta) NodeMeta(limit int) []byte {
	m.Lock()
	defer m.Unlock()
	return m.bytes
}
func (m *meta) NotifyMsg([]byte)                           {}
func (m *meta) GetBroadcasts(overhead, limit int) [][]byte { return nil }
func (m *meta) LocalState(join bool) []byte                { return nil }
func (m *meta) MergeRemoteState(buf []byte, join bool)     {}

func main() {
	count := flag.Int("nodes", 1, "members to run")
	prefix := flag.String("prefix", "go", "start of their names")
	preset := flag.String("preset", "lan", "lan or local")
	key := flag.String("key", "", "encryption key in hex")
	quiet := flag.Bool("quiet", true, "no log")
	flag.Parse()
	members := make([]*memberlist.Memberlist, *count)
	metas := make([]*meta, *count)
	for i := range members {
		config := memberlist.DefaultLANConfig()
		if *preset == "local" {
			config = memberlist.DefaultLocalConfig()
		}
		config.Name = fmt.Sprintf("%s%d", *prefix, i)
		config.BindAddr, config.AdvertiseAddr = "127.0.0.1", "127.0.0.1"
		config.BindPort, config.AdvertisePort = 0, 0
		config.Events = &watcher{config.Name}
		metas[i] = &meta{}
		config.Delegate = metas[i]
		if *quiet {
			config.Logger = log.New(ioutil.Discard, "", 0)
		}
		if *key != "" {
			secret, err := hex.DecodeString(*key)
			if err != nil {
				log.Fatal(err)
			}
			config.SecretKey = secret
		}
		member, err := memberlist.Create(config)
		if err != nil {
			log.Fatal(err)
		}
		members[i] = member
		say("ready %s %d", config.Name, member.LocalNode().Port)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) == 0 {
			continue
		}
		if words[0] == "quit" {
			return
		}
		i, err := strconv.Atoi(words[1])
		if err != nil || i >= len(members) {
			say("error bad index %s", words[1])
			continue
		}
		switch words[0] {
		case "join":
			go func(address string) {
				n, err := members[i].Join([]string{address})
				say("joined %d %d %v", i, n, err)
			}(words[2])
		case "members":
			names := []string{}
			for _, node := range members[i].Members() {
				names = append(names, node.Name)
			}
			say("members %d %s", i, strings.Join(names, ","))
		case "leave":
			go func() {
				err := members[i].Leave(5 * time.Second)
				members[i].Shutdown()
				say("left %d %v", i, err)
			}()
		case "kill":
			members[i].Shutdown()
			say("killed %d", i)
		case "meta":
			metas[i].Lock()
			metas[i].bytes = []byte(words[2])
			metas[i].Unlock()
			go members[i].UpdateNode(5 * time.Second)
		}
	}
}
