// A server of the MongoDB protocol for tests: FerretDB 1 over SQLite, behind a front that lets one command at a time
// through.
//
// FerretDB's updates are not atomic (of eighty guarded decrements of a stock of fifty, eighty won); MongoDB's are, on one
// document. The front makes up for that, so that what a client may rely on with MongoDB holds here too. What is proven
// with it is the client, not the atomicity of MongoDB. Whoever builds it has FerretDB use its index of keys also for
// filters that ask for more than the key or for several keys, see xtask/src/servers/mongo.rs.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/FerretDB/FerretDB/ferretdb"
)

const (
	engine = "FerretDB 1.24.2 (SQLite), one command at a time"

	headerLength  = 16
	longest       = 48 << 20
	opQuery       = 2004
	opMsg         = 2013
	moreToCome    = 1 << 1
	serverStarted = 30 * time.Second
)

func main() {
	listen := flag.String("listen", "127.0.0.1:27017", "where clients connect")
	data := flag.String("data", "", "folder of the data, which is there")
	version := flag.Bool("version", false, "say which engine this is, and end")
	flag.Parse()
	if *version {
		fmt.Println(engine)
		return
	}
	if err := run(*listen, *data); err != nil {
		log.Fatal(err)
	}
}

func run(listen, data string) error {
	if data == "" {
		return errors.New("-data is needed")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	data, err := filepath.Abs(data)
	if err != nil {
		return err
	}
	// A socket's whole path may have a hundred characters, its name in the folder we are in has few.
	if err := os.Chdir(data); err != nil {
		return err
	}
	socket := "ferretdb.sock"
	// The one of a process that was killed.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	server, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{Unix: socket},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: "file:" + data + "/",
	})
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	if err := reachable(socket); err != nil {
		return err
	}

	// Only now: who can connect is served.
	front, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	go func() {
		<-ctx.Done()
		front.Close()
	}()
	fmt.Printf("%s\nlistening on mongodb://%s\n", engine, front.Addr())
	var one sync.Mutex
	for {
		client, err := front.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return <-ended
			}
			return err
		}
		go func() {
			if err := serve(client, socket, &one); err != nil && !errors.Is(err, io.EOF) {
				log.Printf("%s: %v", client.RemoteAddr(), err)
			}
		}()
	}
}

func reachable(socket string) error {
	deadline := time.Now().Add(serverStarted)
	for {
		connection, err := net.Dial("unix", socket)
		if err == nil {
			return connection.Close()
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// serve passes on one client's messages, each with its whole answer before anybody else's.
func serve(client net.Conn, socket string, one *sync.Mutex) error {
	defer client.Close()
	server, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer server.Close()
	for {
		request, err := message(client)
		if err != nil {
			return err
		}
		answers, err := exchange(server, request, one)
		if err != nil {
			return err
		}
		for _, answer := range answers {
			if _, err := client.Write(answer); err != nil {
				return err
			}
		}
	}
}

func exchange(server net.Conn, request []byte, one *sync.Mutex) ([][]byte, error) {
	if !greets(request) {
		one.Lock()
		defer one.Unlock()
	}
	if _, err := server.Write(request); err != nil {
		return nil, err
	}
	if continues(request) {
		// The client wants no answer.
		return nil, nil
	}
	var answers [][]byte
	for {
		answer, err := message(server)
		if err != nil {
			return nil, err
		}
		answers = append(answers, answer)
		if !continues(answer) {
			return answers, nil
		}
	}
}

// greets says whether a client only makes itself known or asks whether anybody is there. That touches no data, and a client
// that waits for it behind the work of others thinks that there is no server.
func greets(request []byte) bool {
	if binary.LittleEndian.Uint32(request[12:]) == opQuery {
		return true // Of which only greetings are left.
	}
	// Flags, the kind of the section, the length of the document, the type of its first element; then its name.
	const name = headerLength + 4 + 1 + 4 + 1
	if len(request) < name {
		return false
	}
	command, _, _ := bytes.Cut(request[name:], []byte{0})
	switch string(command) {
	case "hello", "isMaster", "ismaster", "ping":
		return true
	}
	return false
}

// message reads one message of the wire protocol, header and all.
func message(from io.Reader) ([]byte, error) {
	header := make([]byte, headerLength)
	if _, err := io.ReadFull(from, header); err != nil {
		return nil, err
	}
	length := int32(binary.LittleEndian.Uint32(header))
	if length < headerLength || length > longest {
		return nil, fmt.Errorf("a message of %d bytes", length)
	}
	whole := make([]byte, length)
	copy(whole, header)
	_, err := io.ReadFull(from, whole[headerLength:])
	return whole, err
}

// continues says whether another message follows in the same direction.
func continues(message []byte) bool {
	if binary.LittleEndian.Uint32(message[12:]) != opMsg || len(message) < headerLength+4 {
		return false
	}
	return binary.LittleEndian.Uint32(message[headerLength:])&moreToCome != 0
}
