// A grpc-gateway as its own documentation begins one: a mux as it is by itself in front of one server of gRPC.
package main

import (
	"context"
	"flag"
	"log"
	"net/http"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"stoa/integration/gateway/library"
)

func main() {
	upstream := flag.String("upstream", "", "host:port of the server behind")
	listen := flag.String("listen", "", "host:port of the door")
	flag.Parse()
	mux := runtime.NewServeMux()
	options := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if err := library.RegisterLibraryServiceHandlerFromEndpoint(context.Background(), mux, *upstream, options); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(*listen, mux))
}
